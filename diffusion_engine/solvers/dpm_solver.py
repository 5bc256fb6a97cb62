"""DPM-Solver, singlestep, on eps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..plan.linear import denoised, slot, x
from ..processes import GaussianProcess, Point
from .base import Points, Solver, Update, eps_of, first_order_only, steps, transfer


def between(process: GaussianProcess, s: Point, t: Point, r: float) -> Point:
    """The point at lam_s + r h."""
    return process.at_lam(s.lam + r * (t.lam - s.lam))


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
            if first_order_only(s, t):
                yield Update(s, {0: transfer(s, t, x, denoised)}, t)
                continue
            u = between(process, s, t, 0.5)
            weight = t.sigma * math.expm1(t.lam - s.lam)
            yield Update(s, {1: transfer(s, u, x, denoised)}, None)
            end = t.alpha / s.alpha * x - weight * eps_of(u, slot(1))
            yield Update(u, {0: end}, t, read=(1,))


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
        r1, r2 = 1.0 / 3.0, 2.0 / 3.0
        for s, t in steps(points):
            if first_order_only(s, t):
                yield Update(s, {0: transfer(s, t, x, denoised)}, t)
                continue
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
            yield Update(u2, {0: x - c3 * eps_of(u2, slot(2))}, t, read=(2,))
