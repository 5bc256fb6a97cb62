"""The levels of a run at which a Markov chain runs: their density, and what a call says of it."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..executors.course import Seen
from ..networks.energy import BLOCK, EnergyGradient
from ..ops.philox import uniform
from ..plan import Plan, Row
from ..plan.linear import Linear
from ..processes import Point
from .sums import dot, total

CLEAN = Point(0.0, 1.0, 0.0)
LEAK = 1e-6  # of the noise that the state has, far above what rounding makes


@dataclass(frozen=True)
class Level:
    """A level of a sample's run, and its composed law there.

    at       the law of the state
    call     the row of the network's call there
    after    the row of the run whose call follows the chain, None at its end
    seed     of the sample
    key      of the chain's first move; the others count on
    energy   what the network says of its energy, None where nobody asks
    weights  of the densities that are mixed, by branch; None where they are multiplied
    """

    at: Point
    call: Row
    after: Row | None
    seed: int
    key: int
    energy: EnergyGradient | None
    weights: Mapping[int, float] | None

    def row(self, seen: Seen, new: dict[int, Linear], n: int) -> Row:
        """What the call that was seen becomes, with the normals of move n."""
        return replace(seen.row, new=new, key=self.key + n)

    def log_density(self, seen: Seen) -> float:
        """log p up to a constant, where the call was made."""
        assert self.energy is not None, "checked by the driver"
        logs = log_densities(seen, self.energy)
        if self.weights is not None:
            return mixture(logs, self.weights)[0]
        row = seen.row
        return math.fsum(
            weight * logs[branch]
            for weight, branch, block in zip(row.e, row.branches, row.channel_blocks, strict=True)
            if block == BLOCK
        )

    def accepts(self, log_ratio: float, n: int) -> bool:
        """Whether move n is made, by the sample's own coin; never to where the density is NaN."""
        return math.log(uniform(self.seed, self.key + n)) < log_ratio


def score(at: Point, x: Any, denoised: Any) -> Any:
    """grad log p = (alpha x0 - x) / sigma^2, of tensors or of what a row has for them."""
    return (at.alpha * denoised - x) / at.sigma**2


def square(wanted: Linear, seen: Seen) -> float:
    """||.||^2 of what a row would make of slots and denoised; their differences are taken in float64."""
    made: Tensor | float = 0.0
    for symbol, weight in wanted:
        value = seen.denoised if symbol == "D" else seen.slots[int(symbol[1:])]
        made = made + weight * value.double()
    assert isinstance(made, Tensor)
    rounded = made.to(seen.x.dtype)  # the kernels of `norms` read float32
    return dot(rounded, rounded)


def log_densities(seen: Seen, energy: EnergyGradient) -> dict[int, float]:
    """log p_i up to a constant, by branch, where the call was made."""
    assert seen.row.call is not None
    weight, row = energy.log_density(seen.row.call.at), seen.row
    found = zip(seen.outs, row.branches, row.channel_blocks, strict=True)
    return {b: weight * total(out) for out, b, block in found if block == BLOCK}


def mixture(
    logs: Mapping[int, float], weights: Mapping[int, float]
) -> tuple[float, dict[int, float]]:
    """log sum_i w_i p_i, and the share of each in it."""
    terms = {branch: math.log(weight) + logs[branch] for branch, weight in weights.items()}
    most = max(terms.values())
    if not math.isfinite(most):  # NaN goes on, and flags the sample
        return math.nan, dict.fromkeys(terms, math.nan)
    whole = most + math.log(math.fsum(math.exp(term - most) for term in terms.values()))
    return whole, {branch: math.exp(term - whole) for branch, term in terms.items()}


def mixed(seen: Seen, energy: EnergyGradient, weights: Mapping[int, float]) -> Seen:
    """The same call of the mixture: score = sum_i r_i score_i with r_i = w_i p_i / sum_j w_j p_j, in place of
    sum_i w_i score_i."""
    row = seen.row
    _, shares = mixture(log_densities(seen, energy), weights)
    factors = [shares[branch] / weights[branch] for branch in row.branches]

    def rescaled(terms: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(f * weight for f, weight in zip(factors, terms, strict=bool(terms)))

    return replace(seen, row=replace(row, q=rescaled(row.q), e=rescaled(row.e)))


def with_energy(row: Row) -> Row:
    """A row of a solver that also takes the energy, and makes nothing of it."""
    if row.call is None:
        return row
    return replace(
        row,
        q=(*row.q, 0.0),
        e=row.e and (*row.e, 0.0),
        channel_blocks=(*row.channel_blocks, BLOCK),
        branches=(*row.branches, 0),
    )


def levels(plan: Plan, above: float, below: float) -> dict[int, tuple[Point, Point]]:
    """The rows behind which a chain runs: the level that they leave, and the next cleaner one."""
    states = [(i, row.state) for i, row in enumerate(plan.rows) if row.state is not None]
    following = [state for _, state in states[1:]] + [CLEAN]
    return {
        i: (at, cleaner)
        for (i, at), cleaner in zip(states, following, strict=True)
        if at.sigma > 0.0 and above < at.ratio <= below
    }


def check_history(plan: Plan, moved: Mapping[int, Any]) -> None:
    """Raises ValueError where a solver goes on from what x was before a chain moved it.

    moved  the rows behind which one does

    Follows how much of the state's noise each slot holds, given a network that knows x0, and how much of
    that is of the time before.
    """
    noise, before = {0: 1.0}, dict[int, float]()
    for i, row in enumerate(plan.rows[1:], 1):
        if i - 1 in moved:
            before = noise | {0: 0.0}
            noise[0] = 1.0
        noise, before = noise | _carried(row, noise), before | _carried(row, before)
        elsewhere = i - 1 in moved and row.call is not None and row.call.read != (0,)
        if elsewhere or (row.state is not None and abs(before.get(0, 0.0)) > LEAK):
            raise ValueError(
                f"solver {plan.name!r} keeps beside x what it was before the chain moved it, and goes on "
                "from that; use one that keeps nothing, such as 'ddpm' or 'heun', or estimates of x0 alone, "
                "such as 'dpmpp_2m'"
            )


def _carried(row: Row, noise: Mapping[int, float]) -> dict[int, float]:
    """The noise in the slots that a row writes."""
    in_raw = 0.0  # which is the prediction, and so x0 but for what p takes of the slots
    if row.e == row.q:
        in_raw = -sum(p * noise.get(k, 0.0) for k, p in enumerate(row.p))
    return {
        k: sum(w * noise.get(int(s[1:]), 0.0) for s, w in new if s[0] == "S") + new["raw"] * in_raw
        for k, new in row.new.items()
    }


def followed(lead: Generator[Any, Any, Any], change: Any) -> Generator[Any, Any, Any]:
    """A lead that sees what a function makes of what there is to see."""
    move = next(lead)
    while True:
        seen = yield move
        try:
            move = lead.send(seen and change(seen))
        except StopIteration as done:
            return done.value
