"""diffusers' pipelines with the engine's loop, from the rows of benchmarks.runs.pipelines."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row

COMMAND = "python -m benchmarks.runs.pipelines"


def pipelines() -> str:
    """Whole calls, and a step's time outside the network."""
    found = rows.committed(results.PIPELINES)
    body = []
    for (name, contender), same in rows.grouped(found, "pipeline", "contender"):
        best = min(same, key=lambda row: float(row["ms"]))
        about = f"{best['threads']}, {best['waiting']}" if int(best["threads"]) > 1 else "1"
        theirs = _outside(rows.some(found, pipeline=name, contender="diffusers"))
        own = _outside(same)
        told = "" if own is None else f"{own:.0f}"
        share = "" if own is None or theirs is None else rows.times(own / theirs)
        body.append([name, contender, f"{rows.number(float(best['ms']))} ({about})", told, share])
    head = ["pipeline", "contender", "ms a call", "outside the network, us a step", "of diffusers'"]
    worst = max(float(row["error"]) for row in found)
    said = (
        "Medians; the least of 1 and 2 threads that wait passively or actively, as stands behind a time. "
        "Outside the network are a scheduler's methods, or all of the engine's loop less the network.",
        f"Images are off from those of diffusers by at most {worst:.1e} of the largest value.",
    )
    text = rows.lines(head, body, 2)
    return f"{text}\n\n{rows.prose(*said, rows.origin(*found, command=COMMAND))}"


def _outside(found: list[Row]) -> float | None:
    return min((float(r["outside_us_step"]) for r in found if r["outside_us_step"]), default=None)
