"""Diffusion posterior sampling (Chung et al., ICLR 2023).

The likelihood of a state is taken to be that of its estimate, p(y | x) = p(y | x0(x)) (theorem 1), and each
step from s to t is followed by one down the distance to the measurement (algorithm 1):

    x_t  <-  x_t - zeta grad_{x_s} ||y - A x0(x_s)||.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan import Plan
from ..solvers.base import Points, Solver
from .conjugate import weighted
from .inverse import Estimate, InverseProblem, after_steps
from .sums import dots


@dataclass(frozen=True)
class DPS(InverseProblem):
    """x_t - zeta grad ||y - A x0||, after each step of a solver; the gradient is the step's last call's.

    operator  as in InverseProblem
    zeta      the length of that step, 0 or more; it comes once a step, so that fewer steps want a larger one

    The published code takes the gradient of the norm, which the paper's algorithm has twice.
    """

    name: ClassVar[str] = "dps"
    source: ClassVar[str] = "Chung et al. 2023 (DPS), algorithm 1"
    zeta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if checks.number("zeta", self.zeta) < 0.0:
            raise ValueError(f"zeta={self.zeta:g}: the step goes down the distance; give 0 or more")

    def estimate(self, at: Estimate) -> tuple[Tensor, ...]:
        norm = dots(at.residual, at.residual).sqrt()
        down = torch.where(norm > 0.0, 1.0 / norm, 0.0)
        return at.x0, at.pull(at.operator.adjoint(weighted(down, at.residual)))

    def plan(
        self, solver: Solver, network: Parameterisation, points: Points, start: str,
        clip: tuple[float, float] | None,
    ) -> Plan:  # fmt: skip
        return after_steps(
            super().plan(solver, network, points, start, clip), lambda state: self.zeta
        )
