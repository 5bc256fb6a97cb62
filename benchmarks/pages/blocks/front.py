"""Five figures for a first page, one of which we lose."""

from __future__ import annotations

from .. import rows
from . import ops, runs

NORM = "8x128x32x32"
SPELLED = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}


def front() -> str:
    body = [
        step(),
        normals(),
        group_norm(),
        whole("W1", "DDPM's U-Net"),
        whole("digits", "digits network"),
    ]
    row = rows.one(ops.committed("step"), provider=ops.OURS, case="dpmpp_2m", shape=ops.LARGE)
    return rows.lines(
        [f"{row['device']}, {row['threads']} threads", "ours", "theirs", "ours is"], body
    )


def step() -> list[str]:
    """The default solver's, against the fastest of the versions in torch alone."""
    found = rows.some(ops.committed("step"), case="dpmpp_2m", shape=ops.LARGE)
    ours = rows.one(found, provider=ops.OURS)
    plain = [row for row in found if row["provider"].startswith("plain:")]
    best = min(plain, key=lambda row: float(row["median_us"]))
    times = [ops.ms(ours), f"{ops.ms(best)}, best torch"]
    return [f"a step of dpmpp_2m, {ops.LARGE}", *times, _faster(float(ours["vs_best_torch"]))]


def normals() -> list[str]:
    found = rows.some(ops.committed("noise"), shape=ops.LARGE)
    ours, theirs = rows.one(found, provider=ops.OURS), rows.one(found, provider="torch.randn")
    each = [f"{rows.number(float(row['ns_per_element']))} ns" for row in (ours, theirs)]
    return [
        "a normal, on one thread",
        each[0],
        f"{each[1]}, torch",
        _faster(float(ours["vs_best_torch"])),
    ]


def group_norm() -> list[str]:
    found = rows.some(ops.committed("group_norm"), shape=NORM, layout="contiguous")
    ours = rows.one(found, provider=ops.OURS)
    ratio = float(ours["vs_best_torch"])
    theirs = float(ours["median_us"]) * ratio / 1e3
    times = [ops.ms(ours), f"{rows.number(theirs)} ms, torch"]
    return [f"group norm + SiLU, {NORM}", *times, _faster(ratio)]


def whole(name: str, network: str) -> list[str]:
    """One image by DDIM, accelerated, against the best peer."""
    found = [row for row in runs.workload(name) if row["shape"].startswith("1x")]
    ours = rows.one(found, contender="ours:accelerate")
    peer = min((row for row in found if not row["vs_best_peer"]), key=runs.time)
    what = f"an image, {ours['steps']} steps, {network}"
    times = [f"{rows.number(runs.time(row))} ms" for row in (ours, peer)]
    times[1] += f", {SPELLED.get(peer['contender'], peer['contender'])}"
    return [what, *times, _faster(float(ours["vs_best_peer"]))]


def _faster(ratio: float) -> str:
    return f"{rows.times(ratio)} faster" if ratio >= 1 else f"{rows.times(1 / ratio)} slower"
