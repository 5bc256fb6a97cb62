"""What GENIE's head gains on the digits network, from the rows of benchmarks.runs.genie."""

from __future__ import annotations

from ... import results
from .. import rows
from ..rows import Row

PAIRS = {"": ("DDIM", "GENIE"), ", AFS": ("DDIM, AFS", "GENIE, AFS")}


def genie() -> str:
    """The distances, each the best of its grids."""
    found = rows.committed(results.GENIE)
    tables = []
    for (guidance,), same in rows.grouped(rows.some(found, quantity="distance"), "guidance"):
        calls = _calls(same)
        head = [f"guidance {guidance}, calls", *calls]
        tables.append(
            rows.lines(
                head,
                [[who, *_cells(mine, calls)] for (who,), mine in rows.grouped(same, "contender")],
            )
        )
    return "\n\n".join([*tables, _origin(found)])


def genie_gains() -> str:
    """By how much the head comes nearer to the solution than the same steps without it."""
    found = rows.some(rows.committed(results.GENIE), quantity="distance")
    calls = _calls(found)
    body = []
    for (guidance,), same in rows.grouped(found, "guidance"):
        for name, (without, head) in PAIRS.items():
            far, near = _best(same, without), _best(same, head)
            gains = [rows.percent(1 - near[n] / far[n]) for n in calls]
            body.append([f"guidance {guidance}{name}", *gains])
    text = rows.lines(["nearer by, at calls", *calls], body)
    ends = [
        _overtaken(same, calls, guidance) for (guidance,), same in rows.grouped(found, "guidance")
    ]
    return f"{text}\n\n{rows.prose(*ends)}"


def genie_setting() -> str:
    """What the head costs and leaves, and how well the solution is known."""
    found = rows.committed(results.GENIE)
    with_head, plain = (
        float(rows.one(found, quantity="operations", contender=who)["value"])
        for who in ("GENIE", "DDIM")
    )
    left = float(rows.one(found, quantity="unexplained")["value"])
    known = [
        f"{float(row['value']):.1g} with guidance {row['guidance']}"
        for row in rows.some(found, quantity="known")
    ]
    return rows.prose(
        f"The head adds {rows.percent(with_head / plain - 1)} to the operations of this small",
        f"network's call, and leaves {rows.percent(left)} of the mean square it was trained on unexplained.",
        f"The solution is known to {' and '.join(known)}.",
    )


def _calls(found: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["calls"] for row in found))


def _best(found: list[Row], who: str) -> dict[str, float]:
    """The least distance by calls."""
    return {
        calls: min(float(row["value"]) for row in same)
        for (calls,), same in rows.grouped(rows.some(found, contender=who), "calls")
    }


def _cells(mine: list[Row], calls: list[str]) -> list[str]:
    best = [min(rows.some(mine, calls=n), key=lambda row: float(row["value"])) for n in calls]
    return [f"{float(row['value']):.3f} {row['grid'][0]}" for row in best]


def _overtaken(same: list[Row], calls: list[str], guidance: str) -> str:
    """From how many calls on DPM-Solver++ is nearer than the head in either form."""
    other = _best(same, "DPM-Solver++(2M)")
    heads = [_best(same, head) for _, head in PAIRS.values()]
    nearer = [other[n] < min(head[n] for head in heads) for n in calls]
    first = len(nearer) - next(
        (i for i, yes in enumerate(reversed(nearer)) if not yes), len(nearer)
    )
    if first == len(calls):
        return f"With guidance {guidance} DPM-Solver++(2M) is not nearer at {calls[-1]} calls."
    return f"With guidance {guidance} DPM-Solver++(2M) is nearer from {calls[first]} calls on."


def _origin(found: list[Row]) -> str:
    return rows.prose(rows.origin(*found, command="python -m benchmarks.runs.genie"))
