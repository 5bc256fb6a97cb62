"""Stochastic transitions that policy gradients train flow models with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..plan.linear import denoised, normal, x
from ..processes import GaussianProcess
from .base import Points, Solver, Update, eps_of, steps, transfer
from .ddim import toward


@dataclass(frozen=True)
class FlowSDE(Solver):
    """y' = y - d (eps - x0 + a^2 / (2 (1 - u)) eps) + a sqrt(d u / (1 - u)) z for a step of d = u - u'.

    Euler and Maruyama's method for the SDE of a flow with G = a sqrt(u / (1 - u)), of y = x / (alpha + sigma)
    at u = sigma / (alpha + sigma): flow matching's own x and t, and those of any process. At pure noise,
    u = 1, the two denominators have the next u. The step to clean data returns `denoised`.

    noise_level  a; 0 is Euler's method for the ODE
    denoise      False keeps the mean and the noise of the step to clean data
    """

    name: ClassVar[str] = "flow_sde"
    source: ClassVar[str] = "Liu et al. 2025 (Flow-GRPO), eq. 9"
    differs: ClassVar[str] = (
        "the step to clean data returns `denoised`, where the code leaves its noise in (denoise=False)"
    )
    keeps_noise: ClassVar[bool] = False
    noise_level: float = 0.7
    denoise: bool = True

    def __post_init__(self) -> None:
        if not self.noise_level >= 0.0:
            raise ValueError(f"noise_level={self.noise_level:g}: an amount of noise is 0 or above")

    @property
    def stochastic(self) -> bool:
        return self.noise_level > 0.0

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            if t.sigma == 0.0 and (self.denoise or s.alpha == 0.0):
                yield Update(s, {0: transfer(s, t, x, denoised)}, t)
                continue
            total = t.alpha + t.sigma
            u, end = s.sigma / (s.alpha + s.sigma), t.sigma / total
            d, clean = u - end, 1.0 - (u if s.alpha > 0.0 else end)
            drift = 0.5 * self.noise_level**2 * d / clean
            noise = self.noise_level * math.sqrt(d * u / clean)
            mean = transfer(s, t, x, denoised) - total * drift * eps_of(s)
            yield Update(s, {0: mean + total * noise * normal(0)}, t)


@dataclass(frozen=True)
class CPS(Solver):
    """x_t = alpha_t x0 + sigma_t (cos(b) eps + sin(b) z), b = noise_level pi / 2.

    Coefficients-preserving sampling: 'ddim' whose share of fresh noise is the same in every step, so that the
    level of each state is kept, and more steps renew more.

    noise_level  0 is DDIM, 1 forgets all of eps
    """

    name: ClassVar[str] = "cps"
    source: ClassVar[str] = "Wang & Yu 2025 (Flow-CPS)"
    on_path: ClassVar[bool] = False
    noise_level: float = 0.7

    def __post_init__(self) -> None:
        if not 0.0 <= self.noise_level <= 1.0:
            raise ValueError(f"noise_level={self.noise_level:g}: that of CPS lies between 0 and 1")

    @property
    def order(self) -> int:  # type: ignore[override]
        return 0 if self.stochastic else 1  # a step's share of fresh noise does not shrink with it

    @property
    def stochastic(self) -> bool:
        return self.noise_level > 0.0

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            noise = t.sigma * math.sin(0.5 * math.pi * self.noise_level)
            yield Update(s, {0: toward(s, t, noise)[0] + noise * normal(0)}, t)
