"""The step, the normals and the ops of networks, from the rows of benchmarks.run --op."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from .. import rows
from ..rows import Row

FILE = "amd-epyc-25.1.csv"  # of the machine that the pages show
LARGE = "16x3x256x256"
STEPS = {
    "ddim": "DDIM",
    "ddim-net": "DDIM, next input too",
    "ddim-clip": "DDIM, clipped",
    "ddim-cfg": "DDIM with guidance",
    "ddpm": "DDPM, noise inside",
    "ddpm-clip": "DDPM, clipped",
    "dpmpp_2m": "DPM-Solver++(2M)",
}
OURS = "ours:cpp"
EDGE = 4  # channels: a network's first and last layers have as many or fewer


def committed(op: str, file: str = FILE) -> list[Row]:
    """The latest rows of an op or a part of runs."""
    return rows.some(rows.latest_ops(rows.committed(file)), op=op)


def steps() -> str:
    """One step of every case at a large shape, and the range of its ratios over all shapes."""
    found = committed("step")
    body = []
    for case, name in STEPS.items():
        mine = rows.some(found, case=case, provider=OURS)
        large = rows.one(mine, shape=LARGE)
        compared = [
            cell
            for key in ("vs_best_torch", "vs_diffusers")
            for cell in _compared(mine, large, key)
        ]
        body.append([name, ms(large), rows.percent(float(large["copy_share"])), *compared])
    head = [
        "step",
        "time",
        "of a copy's rate",
        "best plain torch",
        "all shapes",
        "diffusers' `.step`",
        "all shapes",
    ]
    lost = [
        f"{STEPS[row['case']]} ({_best_torch(found, row)})"
        for row in rows.some(found, provider=OURS, shape=LARGE)
        if float(row["vs_best_torch"]) < 1
    ]
    text = [
        f"Times are those of {LARGE} in float32, and all shapes those of `benchmarks/shapes.py`."
    ]
    text += [f"Slower than the best plain torch there: {', '.join(lost)}."] if lost else []
    return _below(rows.lines(head, body), text, found, "step")


def normals() -> str:
    """A normal on one thread against torch.randn."""
    found = committed("noise")
    body = []
    for row in rows.some(found, provider=OURS):
        torch = rows.one(found, provider="torch.randn", shape=row["shape"])
        each = [f"{rows.number(float(it['ns_per_element']))} ns" for it in (row, torch)]
        body.append(
            [row["shape"], *each, _ratio(row["vs_best_torch"]), f"{float(row['max_error']):.1g}"]
        )
    head = ["shape", "a normal", "of `torch.randn`", "faster by", "error against float64"]
    return _below(rows.lines(head, body), [], found, "noise")


def ops() -> str:
    """The ops of networks, by groups of shapes."""
    groups = norm_groups() | attention_groups() | convolution_groups()
    body = []
    for (op, shapes), mine in groups.items():
        ratios = [float(row["vs_best_torch"]) for row in mine]
        spread = (min(ratios), statistics.median(ratios), max(ratios))
        body.append([op, shapes, str(len(ratios)), *map(rows.times, spread)])
    head = ["op", "shapes", "cases", "worst", "median", "best"]
    everything = [row for mine in groups.values() for row in mine]
    return _below(rows.lines(head, body, 2), [], everything, "group_norm|attention|conv3x3")


def norm_groups() -> dict[tuple[str, str], list[Row]]:
    found = rows.some(committed("group_norm"), provider=OURS)
    nets = [row for row in found if row["case"].split()[0] in ("target", "W1", "W2", "W3", "W4")]
    decoder = [row for row in found if row["case"].startswith("W6")]
    return {
        ("group norm + SiLU", "U-Nets, 4 to 64 pixels a side"): _silu(nets, True),
        ("", "a VAE's decoder, 64 to 512"): _silu(decoder, True),
        ("group norm alone", "U-Nets"): _silu(nets, False),
        ("", "a VAE's decoder"): _silu(decoder, False),
    }


def attention_groups() -> dict[tuple[str, str], list[Row]]:
    found = rows.some(committed("attention"), provider=OURS)
    narrow = rows.some(found, case="narrow")
    return {
        ("attention", "U-Nets and DiT, head dims 40 to 256"): [r for r in found if r not in narrow],
        ("", "head dim 8"): [row for row in narrow if row["shape"].endswith("x8")],
        ("", "head dim 16"): [row for row in narrow if row["shape"].endswith("x16")],
    }


def convolution_groups() -> dict[tuple[str, str], list[Row]]:
    """Each layer with the better of the two tiles, which `accelerate` measures too."""
    found = [row for row in committed("conv3x3") if row["provider"].startswith(OURS)]
    best = [
        max(same, key=lambda row: float(row["vs_best_torch"]))
        for _, same in rows.grouped(found, "case", "shape", "layout")
    ]
    edge = [row for row in best if min(map(int, row["shape"].split("x")[1:3])) <= EDGE]
    inner = [row for row in best if row not in edge]
    return {
        ("3x3 convolution", "DDPM's U-Net"): rows.some(inner, case="W1"),
        ("", "Stable Diffusion's U-Net"): rows.some(inner, case="W4"),
        ("", "first and last layers, which stay torch's"): edge,
    }


def _silu(found: Iterable[Row], silu: bool) -> list[Row]:
    return [row for row in found if ("silu" in row["case"]) is silu]


def _compared(mine: list[Row], large: Row, key: str) -> list[str]:
    ratios = [float(row[key]) for row in mine]
    return [_ratio(large[key]), f"{rows.times(min(ratios))[:-1]} to {rows.times(max(ratios))}"]


def _best_torch(found: list[Row], row: Row) -> str:
    """Which hand-written torch was the fastest."""
    same = rows.some(found, case=row["case"], shape=row["shape"], layout=row["layout"])
    plain = [other for other in same if other["provider"].startswith("plain:")]
    return f"`{min(plain, key=lambda it: float(it['median_us']))['provider']}`"


def ms(row: Row) -> str:
    return f"{rows.number(float(row['median_us']) / 1e3)} ms"


def _ratio(text: str) -> str:
    return rows.times(float(text))


def _below(table: str, text: list[str], found: Sequence[Row], command: str) -> str:
    origin = rows.origin(*found, command=f"python -m benchmarks.run --op {command}")
    return f"{table}\n\n{rows.prose(*text, origin)}"
