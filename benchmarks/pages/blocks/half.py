"""Networks in bfloat16: calls, trajectories, and the instructions of AMX that are counted."""

from __future__ import annotations

import math

from ... import results
from ...runs.amx import CLOCK, CORES, DOT, LOAD
from .. import rows
from ..rows import Row
from . import native

WITHIN = 2e-2  # of the largest element
OURS, PEER = "ours:native-bf16", "openvino:bf16"
FLOATS = ("openvino", "ours:native")
DATA = {"digits": "digits", "W1": "W1, a DDPM U-Net"}


def native_bf16() -> str:
    """Calls in bfloat16 on a quiet machine, beside the fastest of those in float32."""
    found = native.calls("call", "quiet", dtype="bfloat16")
    contenders = [name for (name,), _ in rows.grouped(found, "contender")]
    body = []
    for (network, batch), same in rows.grouped(found, "network", "batch"):
        plain = native.calls("call", "quiet", network=network, batch=batch)
        cells = [_cell(native.best(same, name)) for name in contenders]
        cells += [native.cell(native.best(plain, name)) for name in FLOATS]
        ours, peer = (native.best(same, name) for name in (OURS, PEER))
        over = rows.times(native.ms(peer) / native.ms(ours)) if ours and peer else ""
        body.append([native.NAMES[network], batch, *cells, over])
    head = ["network", "batch", *contenders, *(f"{name}, float32" for name in FLOATS)]
    text = rows.lines([*head, "faster than OpenVINO's bf16 by"], body, 2)
    kinds = {row["version"].rpartition("/")[2] for row in rows.some(found, contender=OURS)}
    said = [
        "Medians in ms a call, each at its best of 1 and 2 threads that wait passively or actively, as "
        f"stands behind it. Our products are done by `{'`, `'.join(sorted(kinds))}`.",
        f"Off from float64 by at most {_worst(found, OURS):.1e} of the largest element; of peers that are "
        f"off by more than {WITHIN} it is said.",
        *(["On AMX nothing was timed: those rows are open."] if "amx" not in kinds else []),
        rows.origin(*found, command=native.COMMAND),
    ]
    return f"{text}\n\n{rows.prose(*said)}"


def native_quality() -> str:
    """What becomes of trajectories in bfloat16."""
    found = rows.committed(results.QUALITY)
    body = [
        [DATA[row["network"]], row["contender"], _psnr(row), f"{float(row['largest']):.1e}",
         *(f"{100 * float(row[key]):.1f} %" if row[key] else "" for key in ("changed", "as_asked"))]
        for row in found
    ]  # fmt: skip
    head = [
        "network",
        "contender",
        "PSNR, dB",
        "largest difference",
        "labelled otherwise",
        "as asked",
    ]
    labelled = rows.some(found, network="digits")[-1]
    pictures = rows.some(found, network="W1")[-1]["samples"]
    said = (
        f"{labelled['samples']} guided digits (scale {float(labelled['guidance']):g}) and {pictures} "
        f"pictures of W1, {labelled['steps']} steps of DDIM from the same noise, beside torch's network in "
        "float32 with the state in float64. PSNR is of the data's range, 2, over all samples. A classifier "
        f"labels the digits, which is right of {100 * float(labelled['accuracy']):.1f} % of images it has "
        "not seen. W1's weights are random, and its estimates of clean data are clipped to the range. "
        "AMX is emulated as its manual describes it.",
        rows.origin(*found, command="python -m benchmarks.runs.quality"),
    )
    return f"{rows.lines(head, body, 2)}\n\n{rows.prose(*said)}"


def native_amx() -> str:
    """The instructions of a call with AMX, and the least time that they take."""
    found = rows.committed(results.AMX)
    body = [
        [native.NAMES[row["network"]], row["batch"],
         *(f"{int(row[key]):,}" for key in ("dots", "loads", "stores")),
         *(rows.number(float(row[key])) for key in ("wanted", "done")),
         rows.percent(float(row["useful"])), rows.number(float(row["ms"]))]
        for row in found
    ]  # fmt: skip
    head = ["network", "batch", "dot products", "tile loads", "tile stores", "wanted, G", "done, G",
            "of use", "least ms"]  # fmt: skip
    said = (
        "Counted where the instructions are emulated, not measured: the multiplications of the products in "
        "bf16 and those that their tiles do, in 1e9 a call, and the least time: "
        f"{DOT} cycles a dot product or {LOAD} a tile that lies in the first cache, whichever takes longer "
        f"of all, on {CORES} cores of {CLOCK:g} GHz. What lies between the products, and data that has to "
        "come from further away, is not in it.",
        rows.origin(*found, command="python -m benchmarks.runs.amx"),
    )
    return f"{rows.lines(head, body, 1)}\n\n{rows.prose(*said)}"


def _cell(best: Row | None) -> str:
    off = "" if best is None else best["error"]
    said = f", off by {float(off):.2g}" if off and float(off) > WITHIN else ""
    return native.cell(best) + said


def _worst(found: list[Row], contender: str) -> float:
    return max(float(row["error"]) for row in rows.some(found, contender=contender))


def _psnr(row: Row) -> str:
    value = float(row["psnr_db"])
    return "" if math.isinf(value) else f"{value:.1f}"
