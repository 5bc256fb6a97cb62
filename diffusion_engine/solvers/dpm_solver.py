"""DPM-Solver, singlestep, on eps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..plan.linear import Linear, denoised, normal, slot, x
from ..processes import GaussianProcess, Point
from .base import Points, Solver, Update, eps_of, first_order_only, steps, transfer
from .euler import ancestral, level


def between(process: GaussianProcess, s: Point, t: Point, r: float) -> Point:
    """The point at lam_s + r h."""
    return process.at_lam(s.lam + r * (t.lam - s.lam))


def step(
    process: GaussianProcess, order: int, s: Point, t: Point, to: Point, noise: Linear
) -> Iterator[Update]:
    """A step of DPM-Solver from s to t, of first order where lam is infinite at an end.

    to     the state that it leaves once `noise` is put to its end: t, or what an ancestral step goes below
    """
    if order == 1 or first_order_only(s, t):
        yield Update(s, {0: transfer(s, t, x, denoised) + noise}, to)
    else:
        yield from (second if order == 2 else third)(process, s, t, to, noise)


def second(
    process: GaussianProcess, s: Point, t: Point, to: Point, noise: Linear
) -> Iterator[Update]:
    """The midpoint rule in lam (Lu et al. 2022, algorithm 1)."""
    u = between(process, s, t, 0.5)
    weight = t.sigma * math.expm1(t.lam - s.lam)
    yield Update(s, {1: transfer(s, u, x, denoised)}, None)
    end = t.alpha / s.alpha * x - weight * eps_of(u, slot(1))
    yield Update(u, {0: end + noise}, to, read=(1,))


def third(
    process: GaussianProcess, s: Point, t: Point, to: Point, noise: Linear
) -> Iterator[Update]:
    """DPM-Solver-3 with r1 = 1/3 and r2 = 2/3 (Lu et al. 2022, algorithm 2)."""
    r1, r2 = 1.0 / 3.0, 2.0 / 3.0
    h, e0 = t.lam - s.lam, eps_of(s)
    u1, u2 = between(process, s, t, r1), between(process, s, t, r2)
    q1 = math.expm1(h)
    c2 = u2.sigma * r2 / r1 * (math.expm1(r2 * h) / (r2 * h) - 1.0)
    c3 = t.sigma / r2 * (q1 / h - 1.0)
    # Slots 0 and 2 take what they need of eps(x) now: partial sums, no slot for eps(x).
    first = {
        0: t.alpha / s.alpha * x - (t.sigma * q1 - c3) * e0,
        1: transfer(s, u1, x, denoised),
        2: u2.alpha / s.alpha * x - (u2.sigma * math.expm1(r2 * h) - c2) * e0,
    }
    yield Update(s, first, None)
    yield Update(u1, {2: slot(2) - c2 * eps_of(u1, slot(1))}, None, read=(1,))
    yield Update(u2, {0: x - c3 * eps_of(u2, slot(2)) + noise}, to, read=(2,))


@dataclass(frozen=True)
class DPMSolver2(Solver):
    """The midpoint rule in lam: x_t = alpha_t/alpha_s x - sigma_t (e^h - 1) eps(u) (Lu et al. 2022).

    u is reached at half the step in lam by a first-order step. Steps from pure noise and to clean
    data are first order.
    """

    name: ClassVar[str] = "dpm_solver_2"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver), algorithm 1"
    calls: ClassVar[int] = 2
    order = 2

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            yield from step(process, 2, s, t, t, Linear())


@dataclass(frozen=True)
class DPMSolver3(Solver):
    """DPM-Solver-3 with r1 = 1/3 and r2 = 2/3 (Lu et al. 2022).

    Steps from pure noise and to clean data are first order.
    """

    name: ClassVar[str] = "dpm_solver_3"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver), algorithm 2"
    calls: ClassVar[int] = 3
    order = 3

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            yield from step(process, 3, s, t, t, Linear())


@dataclass(frozen=True)
class DPMFast(Solver):
    """DPM-Solver-fast: DPM-Solver-3 in all steps but the last one or two (Lu et al. 2022; k-diffusion).

    A run of n calls has n // 3 + 1 steps, in published code equal ones in lam. Steps from pure noise and to
    clean data are first order.

    rest     n mod 3, by which the last steps have the orders 2 and 1 (0), 1, or 2
    eta      0 is the ODE. Else each step goes to a lower level, at the lowest that of the last point, and
             fresh noise leads up to its own, as in 'euler_ancestral'
    s_noise  multiplies the fresh noise
    """

    name: ClassVar[str] = "dpm_fast"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver), section 3.4; k-diffusion"
    calls: ClassVar[int] = 3
    rest: int = 2
    eta: float = 0.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.rest not in (0, 1, 2):
            raise ValueError(f"rest={self.rest}: n mod 3 of a run of n calls is 0, 1 or 2")
        if self.eta < 0.0:
            raise ValueError(f"eta={self.eta:g}: an amount of noise is 0 or above")

    @property
    def order(self) -> int:
        return 3 if self.rest == 2 else 2  # one step of order p leaves the run no more than p + 1

    @property
    def asymptotic(self) -> int:
        return 3

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        last = {0: [2, 1], 1: [1], 2: [2]}[self.rest]
        orders = ([3] * len(points) + last)[-(len(points) - 1) :]
        for order, (s, t) in zip(orders, steps(points), strict=True):
            down, up = ancestral(s, t, self.eta)
            if self.eta and down < (least := points[-1].ratio):
                down, up = least, math.sqrt(t.ratio**2 - least**2)
            noise = t.alpha * up * self.s_noise * normal(0)
            yield from step(process, order, s, level(t, down), t, noise)
