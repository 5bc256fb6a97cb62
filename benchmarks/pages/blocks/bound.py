"""VDM's bound under two schedules, from the rows of benchmarks.runs.bound."""

from __future__ import annotations

from ... import results
from .. import rows

Z = 1.96  # standard deviations that 95 % of a normal law lie within
COMMAND = "python -m benchmarks.runs.bound"


def quality_bound() -> str:
    """A line a number of steps: both bounds, and how much more an image costs under the straight schedule."""
    found = rows.committed(results.BOUND)
    body = []
    for (steps,), same in rows.grouped(found, "steps"):
        body.append([f"in {steps} steps" if steps else "continuous", *map(_figure, same)])
    table = rows.lines(["time", *(row["schedule"] for row in found[: len(body[0]) - 1])], body)
    said = f"bits/dim of {found[0]['images']} held-out images, each at {found[0]['times']} times."
    return f"{table}\n\n{rows.prose(said, rows.origin(*found, command=COMMAND))}"


def _figure(row: rows.Row) -> str:
    return f"{float(row['value']):.3f} ± {Z * float(row['spread']):.3f}"
