"""A solver's plan as a learned table: what it does, written in the table's form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..plan import Plan, Row
from ..processes import GaussianProcess, Point
from .table import Table
from .weights import law_of

Array = np.ndarray


def table_of(plan: Plan, process: GaussianProcess, **about: object) -> Table:
    """The table of a plan: the solver's own numbers, from which one learns, or another's.

    plan     of a solver without noise that reads one slot and uses what it calls `denoised` alone
    process  that it is of
    about    network, family, guidance, note
    Raises ValueError where the plan is another.
    """
    calls = [row for row in plan.rows if row.call is not None]
    if len(calls) != len(plan.rows) - 1 or any(_objection(row) for row in calls):
        what = next(filter(None, map(_objection, calls)), "has rows without calls")
        raise ValueError(
            f"the plan of {plan.name!r} {what}, and a learned table has none of that; give "
            "that of 'dpmpp_2m', 'unipc' or 'heun'"
        )
    n = len(calls)
    slots = {0: np.eye(n + 1)[0]}
    states = []
    for j, row in enumerate(calls):
        assert row.call is not None
        states.append(slots[row.call.read[0]])
        estimate = np.eye(n + 1)[j + 1]
        slots |= {k: _content(new, slots, estimate) for k, new in row.new.items()}
    states.append(slots[0])
    levels = [row.call.at for row in calls if row.call] + [calls[-1].state or process.clean]
    return table_of_states(process, levels, np.array(states), exact=plan.exact, **about)


def table_of_states(
    process: GaussianProcess, levels: Sequence[Point], states: Array, **about: object
) -> Table:
    """The table of N + 1 states: their levels, and their weights [N + 1, N + 1] of x_0 and of the calls'
    estimates of x0.

    about  exact, network, family, guidance, note
    """
    return Table.model_validate(
        {
            "process": law_of(process), "times": [(p.t, p.alpha, p.sigma) for p in levels],
            "a": [float(state[0]) for state in states[1:]],
            "b": [[float(w) for w in state[1 : i + 1]] for i, state in enumerate(states[1:], 1)],
            **about,
        }
    )  # fmt: skip


def _content(new: object, slots: dict[int, Array], estimate: Array) -> Array:
    terms = [w * (estimate if s == "D" else slots[int(s[1:])]) for s, w in new]  # type: ignore[attr-defined]
    return sum(terms, np.zeros(len(estimate)))


def _objection(row: Row) -> str | None:
    symbols = {s for new in row.new.values() for s, _ in new}
    if any(s.startswith("z") for s in symbols):
        return "draws noise"
    if "raw" in symbols or row.guider or row.known or row.scale != 1.0:
        return "uses more of a call than its estimate of x0"
    if row.call is not None and len(row.call.read) != 1:
        return "reads two slots"
    return None
