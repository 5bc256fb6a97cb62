"""Plug-and-play restoration (Zhu et al., CVPR workshops 2023).

The estimate of x0 takes a proximal step towards the measurement (algorithm 1), with g = sigma / alpha:

    x0  <-  argmin_z ||y - A z||^2 + rho ||z - x0||^2,   rho = lam sigma_y^2 / g^2,
         =  x0 + (A^T A + rho I)^-1 A^T (y - A x0).

No derivative of the network is taken. With sigma_y = 0 this is x0 + A^+ (y - A x0), the projection onto the
images that have the measurement, as in DDNM (Wang et al., ICLR 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import checks
from .conjugate import conjugate_gradients, weighted
from .inverse import Estimate, Noisy


@dataclass(frozen=True)
class DiffPIR(Noisy):
    """x0 + (A^T A + lam sigma_y^2 / g^2 I)^-1 A^T (y - A x0), g = sigma / alpha; then any solver's step.

    operator    as in InverseProblem
    sigma_y     standard deviation of the measurement's noise, 0 or more
    lam         the paper's lambda: how much the network's estimate counts against the measurement, above 0
    iterations  of conjugate gradients for the inverse; 1 is exact where A A^T is a multiple of I

    The paper's steps are DDIM's with zeta of the noise fresh; here a solver has its own.
    """

    name: ClassVar[str] = "diffpir"
    source: ClassVar[str] = "Zhu et al. 2023 (DiffPIR), algorithm 1"
    differentiates: ClassVar[bool] = False
    lam: float = 8.0
    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not checks.number("lam", self.lam) > 0.0:
            raise ValueError(f"lam={self.lam:g}: the weight of the network's estimate is above 0")

    def estimate(self, at: Estimate) -> Tensor:
        a = at.operator
        rho = self.lam * (self.sigma_y * at.alpha / at.sigma) ** 2

        def normal(z: Tensor) -> Tensor:
            return a.adjoint(a.apply(z)) + weighted(rho, z)

        return at.x0 + conjugate_gradients(normal, a.adjoint(at.residual), self.iterations)
