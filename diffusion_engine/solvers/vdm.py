"""The ancestral sampler of variational diffusion models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan.linear import normal, x
from ..processes import GaussianProcess
from .base import Points, Solver, Update, eps_of, finite_start, steps


@dataclass(frozen=True)
class VDM(Solver):
    """x_t = alpha_t / alpha_s (x - sigma_s c eps) + sigma_t sqrt(c) z, c = 1 - e^(gamma_t - gamma_s).

    gamma = -2 lam, so this is 'ddim' with eta=1. As published a run takes 1000 steps on the process VDM
    and ends at its t = 0 (end="t_min"), whose x adapters.vdm.decode makes an image; the last step to
    clean data returns `denoised`.
    """

    name: ClassVar[str] = "vdm"
    source: ClassVar[str] = "Kingma et al. 2021 (VDM), eq. 34"

    @property
    def stochastic(self) -> bool:
        return True

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return finite_start(parameterisation.process, points)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            c = -math.expm1(-2.0 * (t.lam - s.lam))
            mean = t.alpha / s.alpha * (x - s.sigma * c * eps_of(s))
            yield Update(s, {0: mean + t.sigma * math.sqrt(c) * normal(0)}, t)
