"""Gaussian data: every linear sampler's mean and variance can be followed exactly."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .exact import Data


@dataclass(frozen=True)
class Gaussian(Data):
    """N(mean, std^2) in every element; x_t is then N(alpha mean, alpha^2 std^2 + sigma^2)."""

    mean: float = 0.3
    std: float = 0.5

    def __post_init__(self) -> None:
        if not self.std > 0.0:
            raise ValueError(f"std={self.std:g}: a standard deviation is above 0")

    def denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x - alpha * self.mean)

    def eps(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        return sigma * (x - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)
