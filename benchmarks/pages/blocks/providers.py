"""Rows of samplers by every executor, and of ONNX files, from the rows of benchmarks.runs."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row
from .native import NAMES

COMMAND = "python -m benchmarks.runs.providers"
STEPS = "python -m benchmarks.runs.onnx_steps"
TIMES = ("row_us", "runtime_us", "outside_us")


def providers() -> str:
    """The executors side by side, and what "auto" kept."""
    found = rows.committed(results.PROVIDERS)
    executors = [name for (name,), _ in rows.grouped(found, "executor")]
    body, ratios = [], []
    for (network, batch), same in rows.grouped(found, "network", "batch"):
        at = {row["executor"]: row for row in same}
        auto = rows.one(same, executor="auto")
        ratios.append(float(auto["of_best"]))
        cells = [_ms(at.get(name)) for name in executors]
        body.append([NAMES[network], batch, *cells, auto["chosen"], f"{ratios[-1]:.3f}"])
    heads = [f"`{name}`" for name in executors]
    head = ["network", "batch", *heads, "`auto` kept", "of the fastest single one's time"]
    said = (
        "Medians in ms a row: a call of the network and the step. All samplers are of one process, each on "
        "the threads that were measured to be its fastest, and their rows are timed in turn. `auto` takes at "
        f"most {max(ratios):.3f} of the time of the fastest single one.",
        rows.origin(*found, command=COMMAND),
    )
    return f"{rows.lines(head, body, 2)}\n\n{rows.prose(*said)}"


def onnx_steps() -> str:
    """What a row of an ONNX file takes beside the runtime's call."""
    found = rows.committed(results.ONNX_STEPS)
    body = [
        [f"`{row['executor']}`", row["shape"], *(rows.number(float(row[key])) for key in TIMES)]
        for row in found
    ]
    head = ["executor", "shape", "a row, us", "ONNX Runtime's call, us", "outside of it, us"]
    said = (
        "The least times, on one thread, of a file of one operation; the step of the row is in what is "
        "outside.",
        rows.origin(*found, command=STEPS),
    )
    return f"{rows.lines(head, body, 2)}\n\n{rows.prose(*said)}"


def _ms(row: Row | None) -> str:
    return "" if row is None else rows.number(float(row["ms"]))
