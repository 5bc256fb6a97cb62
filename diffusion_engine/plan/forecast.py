"""Forecasting of outputs by a fixed mask: a plan with rows that make no call (Liu et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from .. import checks
from ..ops import layout
from ..processes import Point
from . import Plan, Row
from .linear import Linear, raw, slot

SAME = 1e-12  # between places of the same call
ORDER = "the degree of the polynomial in past outputs, 0 to 4"


def forecast(plan: Plan, calls: Sequence[int], order: int = 1) -> Plan:
    """The plan without some of its calls, whose outputs are extrapolated from those before them.

    out(u) = sum_j w_j(u) out(u_j) over the last order + 1 calls that were made, w_j Lagrange's weights in
    u = atan2(sigma, alpha), which is finite from pure noise to data. TaylorSeer's is the number of the step
    (Liu et al. 2025, arXiv 2503.06923, eq. 4). A row without a call has D = p S + q out(u), p and q its own;
    past outputs take order + 1 slots. Its error is of order + 1 in the steps; the run's is that or the
    solver's, whichever is larger.

    calls  by their numbers from 0, which are not made: neither the first nor the last
    order  0 takes the last output again; fewer past outputs than order + 1 make a lower one
    Raises ValueError where the numbers make no sense, the slots do not suffice, or a row uses more of a call
    than its prediction. Guide the plan afterwards: what is kept is then the guided output.
    """
    order = checks.whole("order", order, 0, ORDER)
    skipped = {checks.whole("calls", number, 0, "numbers of calls, from 0") for number in calls}
    if not skipped:
        return plan
    numbers = {i: n for n, i in enumerate(i for i, row in enumerate(plan.rows) if row.call)}
    _check(plan, skipped, len(numbers), order)
    last = max(i for i, number in numbers.items() if number in skipped)
    past, rows = _Past(plan.slots, order + 1), []
    for i, row in enumerate(plan.rows):
        if row.call is None:
            rows.append(row)
        elif numbers[i] in skipped:
            rows.append(_without_call(row, past.at(place(row.call.at))))
        else:
            rows.append(_keeping(row, past.store(place(row.call.at)) if i < last else None))
    return replace(plan, rows=tuple(rows), exact=False)


def spared(count: int, every: int, after: int) -> tuple[int, ...]:
    """Numbers of the calls of a run of `count` that are not made: behind the first `after` one in `every` is
    made, and the last."""
    every = checks.whole("every", every, 1, "one call in so many is made, 1 for all")
    after = checks.whole(
        "after", after, 1, "so many calls at the beginning are all made, 1 or more"
    )
    return tuple(n for n in range(after, count - 1) if (n - after + 1) % every)


def place(at: Point) -> float:
    """Where an output lies among others: 0 at data, pi / 2 at pure noise."""
    return math.atan2(at.sigma, at.alpha)


class _Past:
    """Past outputs in slots: a new one takes the place of the oldest, or of one at the same place.

    first, size  of their slots
    """

    def __init__(self, first: int, size: int) -> None:
        self._slots = list(range(first, first + size))
        self._kept: list[tuple[float, int]] = []  # (place, slot), the newest last

    def store(self, u: float) -> int:
        """The slot for the output at u."""
        same = next((each for each in self._kept if abs(each[0] - u) < SAME), None)
        if same is None and len(self._kept) == len(self._slots):
            same = self._kept[0]
        if same is not None:
            self._kept.remove(same)
        taken = {k for _, k in self._kept}
        k = next(k for k in self._slots if k not in taken)
        self._kept.append((u, k))
        return k

    def at(self, u: float) -> dict[int, float]:
        """The weight of each slot in the output at u."""
        return {
            k: math.prod((u - v) / (w - v) for v, other in self._kept if other != k)
            for w, k in self._kept
        }


def _keeping(row: Row, k: int | None) -> Row:
    """A row whose raw is the output alone, which goes into slot k."""
    if k is None:
        return row
    own = row.e[0] if row.e else 0.0
    new = {j: _swapped(content, own * raw) for j, content in row.new.items()} | {k: raw}
    return replace(row, e=(1.0,) + (0.0,) * (len(row.q) - 1), new=new)


def _without_call(row: Row, weights: dict[int, float]) -> Row:
    """The row with an output made of slots."""
    output = sum((w * slot(k) for k, w in weights.items()), Linear())
    p = [*row.p, *[0.0] * (1 + max(weights) - len(row.p))]
    for k, w in weights.items():
        p[k] += row.q[0] * w
    own = row.e[0] if row.e else 0.0
    new = {j: _swapped(content, own * output) for j, content in row.new.items()}
    return replace(
        row, call=None, new=new, p=tuple(p), q=(), e=(), channel_blocks=(), branches=()
    )  # fmt: skip


def _swapped(content: Linear, output: Linear) -> Linear:
    """What a slot becomes, with another `raw`."""
    rest = Linear.of({symbol: w for symbol, w in content if symbol != "raw"})
    return rest + content["raw"] * output


def _check(plan: Plan, skipped: set[int], count: int, order: int) -> None:
    """Raises ValueError where calls cannot be left out of a plan."""
    if min(skipped) == 0 or max(skipped) >= count - 1:
        raise ValueError(
            f"calls {sorted(skipped)} of {count}: the first call has no output before it and the last makes "
            f"the sample; leave out some of 1 to {count - 2}"
        )
    if plan.slots + order + 1 > layout.SLOTS:
        most = layout.SLOTS - plan.slots - 1
        rest = (
            f"give order={most} or less, or another solver" if most >= 0 else "take another solver"
        )
        raise ValueError(
            f"{plan.name!r} takes {plan.slots} of {layout.SLOTS} slots, and order={order} keeps {order + 1} "
            f"outputs: {rest}"
        )
    for i, row in enumerate(plan.rows):
        if row.call is None:
            continue
        if len(row.call.read) > 1:
            why = "reads a velocity too"
        elif any(row.branches):
            why = "is guided already; guide what forecast returns"
        elif row.learned:
            why = "takes its variance from the call"
        elif row.unconditional:
            why = "takes the unconditional output apart"
        elif any(row.e[1:]) or any(row.q[1:]):
            why = "takes more of a call than its prediction"
        else:
            continue
        raise ValueError(
            f"row {i} of {plan.name!r} {why}: leave forecast= out, or take another solver"
        )
