"""What a Markov chain does for compositions, from the rows of benchmarks.runs.composition."""

from __future__ import annotations

from ... import results
from .. import rows

Z = 1.96  # standard deviations that 95 % of a normal law lie within
SAID = {
    ("sharpened", "Frechet"): "sharpened: Frechet, less is better",
    ("sharpened", "recall"): "sharpened: recall",
    ("both", "both"): "both: the share",
}


def composition() -> str:
    """Each measure of each way to sample, with its 95 %."""
    found = rows.committed(results.COMPOSITION)
    body = []
    for (name,), same in rows.grouped(found, "contender"):
        cells = [rows.one(same, composition=part, quantity=quantity) for part, quantity in SAID]
        body.append([name, cells[0]["calls"], *map(_figure, cells)])
    table = rows.lines(["", "calls", *SAID.values()], body)
    return (
        f"{table}\n\n"
        f"{rows.prose(rows.origin(*found, command='python -m benchmarks.runs.composition'))}"
    )


def _figure(row: rows.Row) -> str:
    return f"{rows.number(float(row['value']))} ± {rows.number(Z * float(row['spread']))}"
