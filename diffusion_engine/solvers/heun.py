"""Second-order steps in the noise-to-signal ratio g = sigma / alpha: Heun and the log-midpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..plan.linear import Linear, denoised, slot, x
from ..processes import GaussianProcess, Point
from .base import Points, Solver, Update, first_order_only, steps, transfer


@dataclass(frozen=True)
class Churned(Solver):
    """What EDM's stochastic samplers share: noise added before a step (Karras et al. 2022, alg. 2).

    s_churn  total amount; each of N steps raises g by min(s_churn / N, churn_limit)
    s_tmin, s_tmax  range of g in which noise is added, ends included
    s_noise  multiplies the noise
    churn_limit  of a step; DPDM's is 1
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    churn_limit: float = math.sqrt(2.0) - 1.0

    def __post_init__(self) -> None:
        if not self.churn_limit >= 0.0:
            raise ValueError(f"churn_limit={self.churn_limit:g}: a limit of churn is 0 or above")

    @property
    def stochastic(self) -> bool:
        return self.s_churn > 0.0

    def churn(self, process: GaussianProcess, s: Point, count: int) -> tuple[Point, float]:
        """The raised point and the noise that leads to it, for one of `count` steps."""
        if self.s_churn <= 0.0 or s.alpha == 0.0 or not self.s_tmin <= s.ratio <= self.s_tmax:
            return s, 0.0
        gamma = min(self.s_churn / count, self.churn_limit)
        raised = process.at_ratio(s.ratio * (1.0 + gamma))
        return raised, raised.alpha * math.sqrt(raised.ratio**2 - s.ratio**2) * self.s_noise


def slope(at: Point, state: Linear) -> Linear:
    """d(x / alpha) / dg = eps = (x / alpha - x0) / g."""
    return (state / at.alpha - denoised) / at.ratio


@dataclass(frozen=True)
class Heun(Churned):
    """The trapezoid rule in g, two calls a step, one in the last (Karras et al. 2022, algorithm 2)."""

    name: ClassVar[str] = "heun"
    source: ClassVar[str] = "Karras et al. 2022, algorithm 2"
    calls: ClassVar[int] = 2
    order = 2

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for start, t in steps(points):
            s, churn = self.churn(process, start, len(points) - 1)
            end = transfer(s, t, x, denoised)
            if first_order_only(s, t):
                yield Update(s, {0: end}, t, churn=churn, span=(start, t))
                continue
            half = (t.ratio - s.ratio) / 2.0
            partial = t.alpha * (x / s.alpha + half * slope(s, x))
            yield Update(s, {0: partial, 1: end}, None, churn=churn, span=(start, t))
            yield Update(t, {0: x + t.alpha * half * slope(t, slot(1))}, t, read=(1,))


@dataclass(frozen=True)
class DPM2(Churned):
    """The midpoint rule in g with the midpoint taken in log g, two calls a step (k-diffusion)."""

    name: ClassVar[str] = "dpm_2"
    source: ClassVar[str] = "Karras et al. 2022; k-diffusion"
    calls: ClassVar[int] = 2
    order = 2

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for start, t in steps(points):
            s, churn = self.churn(process, start, len(points) - 1)
            if first_order_only(s, t):
                yield Update(s, {0: transfer(s, t, x, denoised)}, t, churn=churn, span=(start, t))
                continue
            middle = process.at_lam(0.5 * (s.lam + t.lam))
            yield Update(
                s, {1: transfer(s, middle, x, denoised)}, None, churn=churn, span=(start, t)
            )
            end = t.alpha * (x / s.alpha + (t.ratio - s.ratio) * slope(middle, slot(1)))
            yield Update(middle, {0: end}, t, read=(1,))
