"""Calls of recorded networks, from the rows of benchmarks.runs.native."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row

OURS, BEFORE = "ours:native", "ours:accelerate"
NAMES = {
    "W1": "W1, a DDPM U-Net",
    "digits": "digits",
    "policy": "a 1-D policy U-Net",
    "DiT": "two blocks of DiT-XL/2",
}
TOLD = "python -m benchmarks.runs.native"
COMMAND = f"{TOLD} --busy --floor --memory"
MOST = 24  # operations of the table, by the time they take


def native() -> str:
    """Calls on a quiet machine."""
    return _speeds("call", "quiet")


def native_busy() -> str:
    """Calls beside another process that takes a core."""
    return _speeds("call", "busy")


def native_avx2() -> str:
    """Calls on a quiet machine with no instructions newer than AVX2."""
    said = (
        "torch, oneDNN within it and within OpenVINO, and ours are told to use AVX2; some element-wise "
        "operations of OpenVINO, and ONNX Runtime as a whole, keep AVX-512."
    )
    return _speeds("call", "quiet", isa="avx2", said=said)


def native_runs() -> str:
    """Trajectories of 20 steps, ms an image, quiet and busy."""
    return _speeds("run", "quiet", "busy")


def _speeds(part: str, *loads: str, isa: str = "", said: str = "") -> str:
    found = [row for load in loads for row in calls(part, load, isa=isa)]
    contenders = [name for (name,), _ in rows.grouped(found, "contender")]
    body = []
    for (network, batch, load), same in rows.grouped(found, "network", "batch", "load"):
        times = [best(same, name) for name in contenders]
        peer = best_peer(same)
        ratio = rows.times(ms(peer) / ms(ours(same)))
        case = [NAMES[network], batch, *([load] if len(loads) > 1 else [])]
        body.append([*case, *(cell(row) for row in times), f"{ratio} {peer['contender']}"])
    head = ["network", "batch", *(["machine"] if len(loads) > 1 else []), *contenders]
    left = len(head) - len(contenders)
    text = rows.lines([*head, "faster than the best peer by"], body, left)
    worst = max(float(row["error"]) for row in rows.some(found, contender=OURS))
    theirs = max(float(row["error"]) for row in found if not _own(row))
    unit = "ms an image" if part == "run" else "ms a call"
    about = (
        f"Medians in {unit}, each at its best of 1 and 2 threads that wait passively or actively, as "
        "stands behind it. Peers are all that are not ours.",
        *([said] if said else []),
        f"Off from float64 by at most {worst:.1e} of the largest element, the peers by {theirs:.1e}.",
    )
    return f"{text}\n\n{rows.prose(*about, _origin(found, isa))}"


def calls(part: str, load: str, isa: str = "", dtype: str = "", **known: str) -> list[Row]:
    """Rows of one dtype, "" for float32."""
    return rows.some(_committed(), part=part, load=load, isa=isa, dtype=dtype, **known)


def native_floor() -> str:
    """Operations of W1 at batch 1 beside the least time of each, and the whole of every network."""
    found = rows.some(_committed(), part="floor")
    shown = rows.some(found, network="W1", batch="1", threads=most_threads(found))
    body = []
    for row in sorted(shown, key=ms, reverse=True):
        if row["operation"] != "all" and len(body) < MOST:
            cells = [rows.number(float(row[key])) for key in ("ms", "floor_ms")]
            body.append([row["operation"], row["size"], row["count"], *cells, _share(row)])
    text = rows.lines(["operation", "size", "count", "ms", "least ms", "share"], body, 2)
    wholes = [
        [NAMES[row["network"]], row["batch"], row["threads"], rows.number(ms(row)),
         rows.number(float(row["floor_ms"])), _share(row), rows.number(float(row["gflop_s"]))]
        for row in rows.some(found, operation="all")
    ]  # fmt: skip
    head = ["network", "batch", "threads", "ms", "least ms", "share", "GFLOP/s of a product"]
    said = (
        f"The {len(body)} that take longest of W1 at batch 1. The least time is the larger of the "
        "products' at the rate of a large matrix product, and of the bytes' at the bandwidth of a copy of "
        "as many; both are measured in one process. Winograd needs fewer multiplications than are counted.",
    )
    return f"{text}\n\n{rows.lines(head, wholes, 1)}\n\n{rows.prose(*said, _origin(found))}"


def native_memory() -> str:
    """The memory of each contender, the seconds until it is ready, and the calls that make up for them."""
    found = rows.some(_committed(), part="memory")
    body = [
        [NAMES[row["network"]], row["batch"], row["contender"],
         *(rows.number(float(row[key])) if row[key] else ""
           for key in ("peak_mb", "held_mb", "export_s", "first_s", "further_s")), _calls_to_pay(row)]
        for row in found
    ]  # fmt: skip
    head = ["network", "batch", "contender", "peak, MB", "peak of calls, MB", "export, s", "ready, s",
            "a further size, s", "pays after, calls"]  # fmt: skip
    said = (
        "Memory is beyond what the process has once its libraries are loaded; a module that stays is part. "
        "After so many calls a contender has taken less time than torch in the same."
    )
    return f"{rows.lines(head, body, 3)}\n\n{rows.prose(said, _origin(found))}"


def _calls_to_pay(row: Row) -> str:
    """How many calls make up for the time to be ready, beside torch at its best; "" where none do."""
    about = {"network": row["network"], "batch": row["batch"]}
    same = calls("call", "quiet", **about)
    own = best(calls("call", "quiet", dtype=row["dtype"], **about), row["contender"])
    plain = [r for name in ("torch", "torch:channels_last") if (r := best(same, name)) is not None]
    if own is None or not plain or row["contender"].startswith("torch"):
        return ""
    gained = min(map(ms, plain)) - ms(own)
    ready = float(row["first_s"] or 0) + float(row["export_s"] or 0)
    return f"{1e3 * ready / gained:.0f}" if gained > 0.0 else ""


def best(found: list[Row], contender: str) -> Row | None:
    """The row of a contender's best setting, or None where it took no part."""
    own = [row for row in found if row["contender"] == contender]
    return min(own, key=ms, default=None)


def best_peer(found: list[Row]) -> Row:
    return min((row for row in found if not _own(row)), key=ms)


def most_threads(found: list[Row]) -> str:
    return max((row["threads"] for row in found), key=int)


def ours(found: list[Row]) -> Row:
    return min(rows.some(found, contender=OURS), key=ms)


def _own(row: Row) -> bool:
    return row["contender"].startswith("ours")


def ms(row: Row) -> float:
    return float(row["ms"])


def cell(row: Row | None) -> str:
    if row is None:
        return ""
    return f"{rows.number(ms(row))} ({row['threads']}{', ' * bool(row['waiting'])}{row['waiting']})"


def _share(row: Row) -> str:
    return rows.percent(float(row["floor_ms"]) / ms(row))


def _committed() -> list[Row]:
    return rows.committed(results.NATIVE)


def _origin(found: list[Row], isa: str = "") -> str:
    return rows.origin(*found, command=f"{TOLD} --isa {isa}" if isa else COMMAND)
