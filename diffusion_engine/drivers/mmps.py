"""Moment matching posterior sampling (Rozet et al., NeurIPS 2024).

The data given a state have the covariance sigma^2 / alpha J, J = d x0 / d x, by Tweedie's second formula, so
that

    grad log p(y | x) = J^T A^T (sigma_y^2 I + sigma^2 / alpha A J A^T)^-1 (y - A x0(x)).

J is symmetric for a perfect network, and J^T is applied in its place, by a backward pass of the network for
each step of conjugate gradients. It is exact for Gaussian data of any covariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .conjugate import conjugate_gradients, weighted
from .inverse import Estimate, Noisy

MOST = 64  # iterations of a call


@dataclass(frozen=True)
class MMPS(Noisy):
    """x0 + sigma^2 / alpha J^T A^T (sigma_y^2 I + sigma^2 / alpha A J A^T)^-1 (y - A x0), J = d x0 / d x.

    operator    as in InverseProblem
    sigma_y     standard deviation of the measurement's noise, 0 or more
    iterations  of conjugate gradients, 1 to 64; a call costs so many backward passes of the network, and one
                more
    """

    name: ClassVar[str] = "mmps"
    source: ClassVar[str] = "Rozet et al. 2024 (MMPS)"
    iterations: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations > MOST:
            raise ValueError(
                f"iterations={self.iterations}: each is a backward pass of the network; give at most {MOST}"
            )

    def estimate(self, at: Estimate) -> Tensor:
        a, noise = at.operator, self.sigma_y**2

        def covariance(w: Tensor) -> Tensor:
            return noise * w + weighted(at.gain, a.apply(at.pull(a.adjoint(w))))

        return at.moved(conjugate_gradients(covariance, at.residual, self.iterations))
