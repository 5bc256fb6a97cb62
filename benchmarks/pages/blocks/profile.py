"""Where the time of a run goes, from the rows of benchmarks.runs.profile."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row


def profile() -> str:
    """The table that `diffusion-engine profile` prints."""
    found = rows.committed(results.PROFILE)
    total = sum(float(row["us_per_row"]) for row in found if not row["within"])
    body = [*map(_line, found), ["total", "", f"{total:.1f}", "100.0 %"]]
    table = rows.lines(["part", "calls a row", "us a row", "share"], body)
    first = found[0]
    what = f"The digits network, {first['solver']}: {first['rows']} rows of {first['samples']} samples."
    origin = rows.origin(*found, command="python -m benchmarks.runs.profile")
    return f"{table}\n\n{rows.prose(what, origin)}"


def _line(row: Row) -> list[str]:
    name = f"its {row['part']}" if row["within"] else row["part"]
    calls = f"{float(row['calls_per_row']):.2f}" if row["calls_per_row"] else ""
    return [name, calls, f"{float(row['us_per_row']):.1f}", f"{100 * float(row['share']):.1f} %"]
