"""Pseudo-inverse guided diffusion (Song et al., ICLR 2023).

The data given a state are taken for N(x0(x), r^2 I), and so a measurement for one of covariance
r^2 A A^T + sigma_y^2 I (section 3):

    grad log p(y | x) = (d x0 / d x)^T A^T (r^2 A A^T + sigma_y^2 I)^-1 (y - A x0(x)).

r^2 is the variance of Gaussian data N(m, s^2) given the state, with g = sigma / alpha,

    r^2 = s^2 g^2 / (s^2 + g^2),

the paper's for s = 1. Then the method is exact for such data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import checks
from .conjugate import conjugate_gradients, weighted
from .inverse import Estimate, Noisy


@dataclass(frozen=True)
class PGDM(Noisy):
    """x0 + sigma^2 / alpha J^T A^T (r^2 A A^T + sigma_y^2 I)^-1 (y - A x0), J = d x0 / d x.

    operator    as in InverseProblem
    sigma_y     standard deviation of the measurement's noise, 0 or more
    sigma_data  s, the data's
    iterations  of conjugate gradients for the inverse; 1 is exact where A A^T is a multiple of I

    The published algorithm weights the gradient otherwise and leaves eps as it is; here it is the score,
    whatever the solver.
    """

    name: ClassVar[str] = "pgdm"
    source: ClassVar[str] = "Song et al. 2023 (PGDM), section 3"
    sigma_data: float = 1.0
    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not checks.number("sigma_data", self.sigma_data) > 0.0:
            raise ValueError(f"sigma_data={self.sigma_data:g}: a standard deviation is above 0")

    def estimate(self, at: Estimate) -> Tensor:
        a, noise = at.operator, self.sigma_y**2
        spread = (self.sigma_data * at.sigma) ** 2
        spread = spread / (at.sigma**2 + (self.sigma_data * at.alpha) ** 2)

        def covariance(w: Tensor) -> Tensor:
            return noise * w + weighted(spread, a.apply(a.adjoint(w)))

        return at.moved(conjugate_gradients(covariance, at.residual, self.iterations))
