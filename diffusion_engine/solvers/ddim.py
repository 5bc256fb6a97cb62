"""DDIM and DDPM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..linear import denoised, normal, x
from ..processes import GaussianProcess, Point
from .base import Points, Solver, Update, steps, transfer


def posterior_std(s: Point, t: Point) -> float:
    """sigma_t sqrt(1 - e^-2h): the standard deviation of x_t given x_s and x0 (DDPM's fixed small)."""
    return t.sigma * math.sqrt(-math.expm1(-2.0 * (t.lam - s.lam))) if t.sigma > 0.0 else 0.0


def forward_std(s: Point, t: Point) -> float:
    """sqrt(sigma_s^2 - (alpha_s / alpha_t)^2 sigma_t^2): that of x_s given x_t (DDPM's fixed large)."""
    return math.sqrt(max(s.sigma**2 - (s.alpha / t.alpha * t.sigma) ** 2, 0.0))


def toward(s: Point, t: Point, noise: float) -> dict:
    """x_t = alpha_t x0 + sqrt(sigma_t^2 - noise^2) eps: the deterministic part of a DDIM step."""
    lower = Point(t.t, t.alpha, math.sqrt(max(t.sigma**2 - noise**2, 0.0)))
    return {0: transfer(s, lower, x, denoised)}


@dataclass(frozen=True)
class DDIM(Solver):
    """x_t = alpha_t x0 + sqrt(sigma_t^2 - c^2) eps + c z, c = eta sigma_t sqrt(1 - e^-2h).

    eta  0 is deterministic, 1 is DDPM with the small variance (Song et al. 2021, eq. 12 and 16)
    """

    name: ClassVar[str] = "ddim"
    source: ClassVar[str] = "Song et al. 2021 (DDIM), eq. 12"
    order: int = 1
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta={self.eta:g}: DDIM's eta lies between 0 and 1")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            c = self.eta * posterior_std(s, t)
            new = toward(s, t, c)
            yield Update(s, {0: new[0] + c * normal(0)}, t)


@dataclass(frozen=True)
class DDPM(Solver):
    """Ancestral sampling: the posterior mean of x_t given x_s and x0, plus noise.

    variance  "fixed_small", the posterior's own, or "fixed_large", that of the forward step
              (Ho et al. 2020, section 3.2). No noise goes into the last, clean x.
    """

    name: ClassVar[str] = "ddpm"
    source: ClassVar[str] = "Ho et al. 2020, algorithm 2"
    order: int = 1
    variance: str = "fixed_small"

    def __post_init__(self) -> None:
        if self.variance not in ("fixed_small", "fixed_large"):
            raise ValueError(
                f"variance={self.variance!r}: DDPM takes 'fixed_small' or 'fixed_large'"
            )

    @property
    def stochastic(self) -> bool:
        return True

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            small = posterior_std(s, t)
            noise = small if self.variance == "fixed_small" else forward_std(s, t)
            new = toward(s, t, small)
            if t.sigma > 0.0:
                new[0] = new[0] + noise * normal(0)
            yield Update(s, new, t)
