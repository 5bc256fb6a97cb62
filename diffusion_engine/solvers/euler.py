"""Euler's method for the probability flow ODE, and its ancestral form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..plan.linear import denoised, normal, x
from ..processes import GaussianProcess, Point
from .base import Points, Solver, Update, steps, transfer


@dataclass(frozen=True)
class Euler(Solver):
    """x / alpha += (g_t - g_s) eps with g = sigma / alpha, which is DDIM (Karras et al. 2022, alg. 1)."""

    name: ClassVar[str] = "euler"
    source: ClassVar[str] = "Karras et al. 2022, algorithm 1"

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            yield Update(s, {0: transfer(s, t, x, denoised)}, t)


def ancestral(s: Point, t: Point, eta: float) -> tuple[float, float]:
    """Ratios (g_down, g_up) of an ancestral step: g_down^2 + g_up^2 = g_t^2 (k-diffusion).

    g_up = min(g_t, eta sqrt(g_t^2 (g_s^2 - g_t^2) / g_s^2)).
    """
    if not math.isfinite(s.ratio):
        up = min(1.0, eta) * t.ratio
    else:
        up = min(t.ratio, eta * math.sqrt(t.ratio**2 * (s.ratio**2 - t.ratio**2)) / s.ratio)
    return math.sqrt(max(t.ratio**2 - up**2, 0.0)), up


@dataclass(frozen=True)
class EulerAncestral(Solver):
    """Euler to a lower level, then fresh noise up to the next one.

    eta      amount of fresh noise, 0 (none) to 1 (DDPM's)
    s_noise  multiplies the fresh noise
    """

    name: ClassVar[str] = "euler_ancestral"
    source: ClassVar[str] = "k-diffusion; Song et al. 2021 (DDIM), eq. 16"
    eta: float = 1.0
    s_noise: float = 1.0

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            down, up = ancestral(s, t, self.eta)
            lower = Point(t.t, t.alpha, t.alpha * down)
            noise = t.alpha * up * self.s_noise
            yield Update(s, {0: transfer(s, lower, x, denoised) + noise * normal(0)}, t)
