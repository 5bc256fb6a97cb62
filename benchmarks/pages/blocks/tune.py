"""Learned tables of the digits beside the usual solvers, from the rows of benchmarks.runs.tune."""

from __future__ import annotations

from ... import results
from .. import rows

SHOWN = ("dpmpp_2m", "unipc", "deis")


def tune() -> str:
    """The distances, a line for each number of calls."""
    found = rows.committed(results.TUNE)
    body = []
    for (calls,), same in rows.grouped(found, "calls"):
        own = next(row for row in same if row["contender"].startswith("tuned"))
        others = [rows.one(same, contender=name) for name in SHOWN]
        known = [f"{_shown(row)} ({row['grid']})" for row in others]
        body.append([calls, _shown(own), *known, f"{float(own['seconds']):.0f} s"])
    head = ["calls", "`learned`", *(f"`{name}`" for name in SHOWN), "learned in"]
    count = {row["samples"] for row in found}.pop()
    about = (
        f"The root mean square distance from the ODE's fine solution over {count} seeds that nothing was "
        "learned from; the others each on its best grid, in parentheses, for these very seeds. The machine "
        "was busy with other work while it learned."
    )
    origin = rows.origin(*found, command="python -m benchmarks.runs.tune")
    return f"{rows.lines(head, body)}\n\n{rows.prose(about, origin)}"


def _shown(row: rows.Row) -> str:
    return f"{float(row['distance']):.4f}"
