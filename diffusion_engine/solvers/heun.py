"""Second-order steps in g = sigma / alpha, Heun's and the log-midpoint, and Heun's in a flow's t."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..plan.linear import Linear, denoised, normal, slot, x
from ..processes import GaussianProcess, Point
from .base import Points, Solver, Update, first_order_only, steps, transfer
from .euler import Churned, Renewed, ancestral, level, slope


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


@dataclass(frozen=True)
class DPM2Ancestral(Renewed):
    """'dpm_2' to a lower level, then fresh noise up to the next one (k-diffusion).

    Both parts of a step keep the law but for the error of the ODE's, so that order 2 holds with noise too.

    eta      amount of fresh noise, 0 (none) to 1 (DDPM's)
    s_noise  multiplies the fresh noise
    """

    name: ClassVar[str] = "dpm_2_ancestral"
    source: ClassVar[str] = "k-diffusion"
    calls: ClassVar[int] = 2
    order = 2

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            down, up = ancestral(s, t, self.eta)
            lower, noise = level(t, down), t.alpha * up * self.s_noise * normal(0)
            if first_order_only(s, lower):
                yield Update(s, {0: transfer(s, lower, x, denoised) + noise}, t)
                continue
            middle = process.at_lam(0.5 * (s.lam + lower.lam))
            yield Update(s, {1: transfer(s, middle, x, denoised)}, None)
            end = t.alpha * (x / s.alpha + (down - s.ratio) * slope(middle, slot(1)))
            yield Update(middle, {0: end + noise}, t, read=(1,))


@dataclass(frozen=True)
class FlowHeun(Solver):
    """The trapezoid rule in t of flow matching, where dx / dt = eps - x0, two calls a step, one in the last.

    Elsewhere it is that of y = x / (alpha + sigma) in u = sigma / (alpha + sigma), which are flow matching's
    x and t. A first step from pure noise has second order too.
    """

    name: ClassVar[str] = "flow_heun"
    source: ClassVar[str] = "Heun 1900; diffusers"
    calls: ClassVar[int] = 2
    order = 2

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            end = transfer(s, t, x, denoised)
            if t.sigma == 0.0:
                yield Update(s, {0: end}, t)
                continue
            total = t.alpha + t.sigma
            half = 0.5 * total * (t.sigma / total - s.sigma / (s.alpha + s.sigma))
            partial = total / (s.alpha + s.sigma) * x + half * velocity(s, x)
            yield Update(s, {0: partial, 1: end}, None)
            yield Update(t, {0: x + half * velocity(t, slot(1))}, t, read=(1,))


def velocity(at: Point, state: Linear) -> Linear:
    """eps - x0."""
    return (state - (at.alpha + at.sigma) * denoised) / at.sigma
