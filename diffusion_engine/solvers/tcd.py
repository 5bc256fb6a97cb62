"""Trajectory consistency distillation: jumps below the next level, and noise up to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from ..networks.parameterisation import Parameterisation
from ..plan.linear import denoised, normal, x
from ..processes import Discrete, GaussianProcess, Point
from ..processes.grids import Grid, angles, distilled
from .base import Points, Solver, Update, off_time, steps, transfer
from .ddim import forward_std


@dataclass(frozen=True)
class TCD(Solver):
    """x_t = a x_u + sqrt(sigma_t^2 - a^2 sigma_u^2) z, a = alpha_t / alpha_u, x_u the DDIM step from s to
    u = (1 - eta) t, a whole timestep of a table; the last step ends at x_t without noise.

    eta       gamma of the paper: 0 draws none, 1 as a consistency model
    original  steps of the distillation, from which the run's timesteps are taken
    """

    name: ClassVar[str] = "tcd"
    source: ClassVar[str] = "Zheng et al. 2024 (TCD), algorithm 4"
    differs: ClassVar[str] = (
        "a run ends at clean data, as all here do, and diffusers' at timestep 0: give times=[..., 0]"
    )
    on_path: ClassVar[bool] = False
    eta: float = 0.3
    original: int = 50

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta={self.eta:g}: TCD's eta lies between 0 and 1")
        if not isinstance(self.original, int) or self.original < 1:
            raise ValueError(f"original={self.original!r}: a whole number of steps above 0")

    @property
    def order(self) -> int:
        """0 with noise, a share of which is fresh however short the step; else DDIM's."""
        return 0 if self.eta else 1

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0

    def default_grid(self, process: GaussianProcess) -> str | Grid | None:
        return (
            partial(distilled, original=self.original) if isinstance(process, Discrete) else angles
        )

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return off_time(parameterisation.process, points) if self.eta else None

    def below(self, process: GaussianProcess, t: Point) -> Point:
        """u, from which noise leads up to t."""
        if self.eta == 0.0:
            return t
        time = (1.0 - self.eta) * t.t
        if isinstance(
            process, Discrete
        ):  # floored in float32, which decides where the product is whole
            time = float(np.floor(np.float32(1.0 - self.eta) * np.float32(t.t)))
        return process.at(max(time, process.range[0]))

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            last = t is points[-1] or t.sigma == 0.0
            u = t if last else self.below(process, t)
            scale, noise = t.alpha / u.alpha, 0.0 if last else forward_std(t, u)
            end = scale * transfer(s, u, x, denoised) + noise * normal(0)
            yield Update(s, {0: end}, t, until=u)
