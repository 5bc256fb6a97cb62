"""A mixture of Gaussians: its score is not linear, so that a solver's order shows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .exact import Data


@dataclass(frozen=True)
class Mixture(Data):
    """Components in every element, independently.

    weights, means, stds  of the components
    """

    weights: tuple[float, ...] = (0.3, 0.5, 0.2)
    means: tuple[float, ...] = (-0.9, 0.1, 0.8)
    stds: tuple[float, ...] = (0.15, 0.1, 0.2)

    def __post_init__(self) -> None:
        count = len(self.weights)
        if not count == len(self.means) == len(self.stds) or count == 0:
            raise ValueError(
                f"{count} weights, {len(self.means)} means and {len(self.stds)} stds: give one of each for "
                "every component"
            )
        if min(self.weights) <= 0.0 or min(self.stds) <= 0.0:
            raise ValueError("weights and standard deviations of a mixture are above 0")

    def components(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, means and standard deviations, in the type of a tensor `like` and where it is."""
        weights, means, stds = (
            torch.tensor(v, dtype=like.dtype, device=like.device)
            for v in (self.weights, self.means, self.stds)
        )
        return weights, means, stds

    def posterior(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights, means and standard deviations of x0 given x = alpha x0 + sigma eps, with the components on
        a last axis."""
        share, residual, variance = self._parts(x, alpha, sigma)
        _, means, stds = self.components(x)
        gain = alpha[..., None] * stds**2 / variance
        return share, means + gain * residual, stds * sigma[..., None] / variance.sqrt()

    def _parts(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of every component, on a last axis: responsibility, residual x - alpha m, variance."""
        weights, means, stds = self.components(x)
        alpha, sigma = alpha[..., None], sigma[..., None]
        variance = alpha**2 * stds**2 + sigma**2
        residual = x[..., None] - alpha * means
        log = weights.log() - 0.5 * variance.log() - 0.5 * residual**2 / variance
        return log.softmax(-1), residual, variance

    def denoised(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        share, means, _ = self.posterior(x, alpha, sigma)
        return (share * means).sum(-1)

    def eps(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        share, residual, variance = self._parts(x, alpha, sigma)
        return sigma * (share * residual / variance).sum(-1)
