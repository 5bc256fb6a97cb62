"""DPM-Solver++ and DPM-Solver, singlestep, whose calls are at the points of the run.

One step of order k goes from a point to the k-th behind it: the points between are its calls, where
'dpm_solver_2' and its kin make their own. Each is reached from the step's start by the formula of its place,
of order 1, 2, ... k. h = lam_t - lam_s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

from ..plan.linear import Linear, denoised, normal, slot, x
from ..processes import GaussianProcess, Point
from .base import Points, Solver, Update, eps_of, first_order_only, transfer
from .dpmpp import DATA, NOISE, Form, check_variant, second_weight, third_weight


def sizes(n: int, order: int, lower_final: bool) -> list[int]:
    """How many points each step goes over, n in all (DPM-Solver-fast's plan, Lu et al. 2022, section 3.4)."""
    if order == 1:
        return [1] * n
    whole, rest = divmod(n, order)
    if rest == 0 and lower_final:
        return [order] * (whole - 1) + [order - 1, 1]
    return [order] * whole + [rest] * (rest > 0)


def orders(points: Points, order: int, lower_final: bool, begin: int) -> list[int]:
    """The order of the formula that each point is reached by: 1, 2, ... within a step."""
    made = [
        place + 1
        for size in sizes(begin + len(points) - 1, order, lower_final)
        for place in range(size)
    ]
    made = made[begin:]
    for i, (s, t) in enumerate(pairwise(points)):
        # The first call of a run is the first of a step, and no step has an infinite one within.
        before = 0 if i == 0 or first_order_only(points[i - 1], s) else made[i - 1]
        made[i] = 1 if first_order_only(s, t) else min(made[i], before + 1)
    return made


class Spread(NamedTuple):
    """The noise of an SDE with the exponent (1 + eta) h, as in 'dpmpp_2m_sde'.

    fresh  each state of a step has noise of its own, where else they have that of one path
    """

    eta: float = 0.0
    scale: float = 1.0
    fresh: bool = False

    def mean(self, s: Point, t: Point) -> Linear:
        """sigma_t / sigma_s e^(-eta h) x + alpha_t (1 - e^(-(1 + eta) h)) x0."""
        if not self.eta:
            return transfer(s, t, x, denoised)
        decay = 0.0 if first_order_only(s, t) else math.exp(-self.eta * (t.lam - s.lam))
        return transfer(s, Point(t.t, t.alpha, t.sigma * decay), x, denoised)

    def shares(self, s: Point, ends: Points) -> list[list[float]]:
        """The weights in the state at each end of the noise between the points before it."""
        if not self.eta:
            return [[0.0] * len(ends) for _ in ends]
        if first_order_only(s, ends[0]):
            return [[ends[0].sigma * self.scale]]
        clock = [math.expm1(2.0 * self.eta * (t.lam - s.lam)) for t in (s, *ends)]
        made = []
        for j, t in enumerate(ends):
            whole = t.sigma * math.sqrt(-math.expm1(-2.0 * self.eta * (t.lam - s.lam))) * self.scale
            parts = [math.sqrt((b - a) / clock[j + 1]) for a, b in pairwise(clock[: j + 2])]
            made.append([0.0] * j + [whole] if self.fresh else [whole * part for part in parts])
        return made


QUIET = Spread()


def walked(
    s: Point, ends: Points, spread: Spread, form: Form, taken: Sequence[Sequence[float]]
) -> Iterator[Update]:
    """One step: the calls at s and at all ends but the last, each of which is reached from s.

    taken  the weights in the state at each end of m - m_s, m of the calls at the ends before it

    Slot 0 sums up the last end, slot k < len(ends) the k-th; what a state takes of the calls to come is
    weights of them, and of the call at s less.
    """
    shares, last = spread.shares(s, ends), len(ends) - 1
    at = [k + 1 for k in range(last)] + [0]
    new = {
        at[k]: spread.mean(s, t) - sum(taken[k]) * form.predicted(s) + shares[k][0] * normal(0)
        for k, t in enumerate(ends)
    }
    yield Update(s, new, ends[0] if last == 0 else None, span=(s, ends[0]))
    for i in range(1, last + 1):
        here, made = ends[i - 1], denoised if form is DATA else eps_of(ends[i - 1], slot(i))
        new = {
            at[k]: slot(at[k]) + taken[k][i - 1] * made + shares[k][i] * normal(0)
            for k in range(i, last + 1)
        }
        state = ends[i] if i == last else None
        yield Update(here, new, state, read=(i,), span=(here, ends[i]))


@dataclass(frozen=True)
class Singlestep(Solver):
    """What both forms share.

    max_order  1 to 3, the points that a step goes over
    variant  "midpoint", where the formula of order 3 takes the newest call's difference alone, or "heun", the
             exact integral of the interpolation
    lower_order_final  a run whose points divide ends in steps of orders max_order - 1 and 1
    begin    how many points a longer run has behind it, whose steps go on here
    """

    form: ClassVar[Form] = DATA
    max_order: int = 2
    variant: str = "midpoint"
    lower_order_final: bool = True
    begin: int = 0

    def __post_init__(self) -> None:
        check_variant(self.variant)
        if self.max_order not in (1, 2, 3):
            raise ValueError(f"max_order={self.max_order!r}: {self.name} has orders 1 to 3")

    @property
    def order(self) -> int:
        # One step of order p leaves the run no more than order p + 1.
        return min(self.max_order, 2) if self.lower_order_final else self.max_order

    @property
    def asymptotic(self) -> int:
        return self.max_order

    def spread(self) -> Spread:
        return QUIET

    def third(self, h: float) -> float:
        """Weight of -scale D2."""
        return third_weight(h)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        made = orders(points, self.max_order, self.lower_order_final, self.begin)
        starts = [i for i, order in enumerate(made) if order == 1]
        for i, j in pairwise([*starts, len(made)]):
            yield from self.step(points[i], points[i + 1 : j + 1])

    def step(self, s: Point, ends: Points) -> Iterator[Update]:
        taken = [self.weights(s, ends[: k + 1]) for k in range(len(ends))]
        return walked(s, ends, self.spread(), self.form, taken)

    def weights(self, s: Point, ends: Sequence[Point]) -> list[float]:
        """Weights of m - m_s in the state at the last end, m of the calls at those before."""
        if len(ends) == 1:
            return []
        *calls, t = ends
        scale, h = self.form.scale(t), t.lam - s.lam
        r = [(at.lam - s.lam) / h for at in calls]
        h *= self.form.sign * (1.0 + self.spread().eta)
        if len(r) == 1:
            return [scale * second_weight(h, self.variant) / r[0]]
        second = second_weight(h, "heun")
        if self.variant == "midpoint":
            return [0.0, scale * second / r[1]]
        third, apart = 2.0 * self.third(h), r[1] - r[0]
        return [
            scale * (second * r[1] + third) / (r[0] * apart),
            -scale * (second * r[0] + third) / (r[1] * apart),
        ]


@dataclass(frozen=True)
class DPMppSinglestep(Singlestep):
    """DPM-Solver++(2S) and (3S) over the points of the run (Lu et al. 2022).

    max_order  1 to 3, the points that a step goes over
    variant  "midpoint", where the formula of order 3 takes the newest call's difference alone, or "heun", the
             exact integral of the interpolation
    lower_order_final  a run whose points divide ends in steps of orders max_order - 1 and 1
    begin    how many points a longer run has behind it, whose steps go on here
    eta      amount of noise, 0 for the ODE: h becomes (1 + eta) h in the exponent of the drift
    s_noise  multiplies the noise
    fresh    each state of a step has noise of its own, as in diffusers, and the run order 1 in law; False
             takes that of one path
    flipped  as in 'dpmpp_3m_sde', of steps of order 3 with noise and variant="heun": order 0
    """

    name: ClassVar[str] = "dpmpp_singlestep"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++), algorithm 1; diffusers"
    differs: ClassVar[str] = (
        "with noise the states of a step lie on one path, where diffusers' have independent noise: fresh=True"
    )
    eta: float = 0.0
    s_noise: float = 1.0
    fresh: bool = False
    flipped: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta < 0.0:
            raise ValueError(f"eta={self.eta:g}: an amount of noise is 0 or above")

    @property
    def order(self) -> int:
        if not self.eta:
            return super().order
        if self.flipped and self.max_order == 3 and self.variant == "heun":
            return 0  # what is added does not shrink with the steps
        return 1 if self.fresh else min(self.max_order, 2)

    @property
    def asymptotic(self) -> int:
        return self.order if self.eta else self.max_order

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0

    @property
    def on_path(self) -> bool:  # type: ignore[override]
        return not self.fresh

    def spread(self) -> Spread:
        return Spread(self.eta, self.s_noise, self.fresh)

    def third(self, h: float) -> float:
        return third_weight(h) + (self.flipped and self.eta > 0.0)


@dataclass(frozen=True)
class DPMSolverSinglestep(Singlestep):
    """DPM-Solver-2 and -3 over the points of the run (Lu et al. 2022); options are dpmpp_singlestep's."""

    name: ClassVar[str] = "dpm_solver_singlestep"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver), algorithms 1 and 2; diffusers"
    form: ClassVar[Form] = NOISE
