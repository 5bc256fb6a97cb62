"""What a network of neighbours makes of them, from the rows of benchmarks.runs.retrieval."""

from __future__ import annotations

from ... import results
from .. import rows

Z = 1.96  # standard deviations that 95 % of a normal law lie within
HEAD = (
    "neighbours of a picture's name", "its picture is the nearest", "among the 5 nearest", "median d1",
    "d1 / d2 below 1/3",
)  # fmt: skip


def retrieval() -> str:
    """A line a way to choose neighbours, and one of held-out pictures."""
    found = rows.committed(results.RETRIEVAL)
    body = [[way, *_cells(same, "samples")] for (way,), same in rows.grouped(found, "way")]
    body.append(["none: held-out pictures", *_cells(found, "held_out")])
    said = rows.prose(rows.origin(*found, command="python -m benchmarks.runs.retrieval"))
    return f"{rows.lines(HEAD, body)}\n\n{said}"


def _cells(same: list[rows.Row], who: str) -> list[str]:
    shares = [
        f"{float(row['value']):.0%} ± {Z * float(row['spread']):.0%}" if who == "samples" else "-"
        for row in (rows.one(same, quantity=quantity) for quantity in ("nearest", "found"))
    ]
    apart = float(rows.one(same, quantity=f"median d1, {who}")["value"])
    below = float(rows.one(same, quantity=f"below 1/3, {who}")["value"])
    return [*shares, f"{apart:.2f}", f"{below:.1%}"]
