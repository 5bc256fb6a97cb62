"""The exact network of Gaussian mixture data, differentiable in state and time, and its classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.network import ScoreNetwork
from ..processes import VP, GaussianProcess
from ..processes.levels import Levels, per_sample


class LabelledMixture(nn.Module):
    """eps(x, t, y) of data drawn from N(means[k], stds[k]^2) in every element, k with odds weights[k].

    The condition y [N] int64 is a component, or the number of components for their mixture; without one it is
    the mixture. Computed in float64.
    """

    def __init__(
        self,
        process: GaussianProcess,
        weights: Sequence[float],
        means: Sequence[float],
        stds: Sequence[float],
    ) -> None:
        super().__init__()
        self.process = process
        self.log_weights, self.means, self.variances = (
            torch.tensor(values, dtype=torch.float64)
            for values in (weights, means, [std * std for std in stds])
        )
        self.log_weights = self.log_weights.log()

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        at, state = Levels.of(self.process, t.double()), x.double()
        share = self._log_joint(state, at)
        if y is not None:
            components = torch.arange(len(self.means), device=y.device)
            other = (components != y[:, None]) & (y[:, None] < len(self.means))
            share = share.masked_fill(other, -torch.inf)
        share = share.softmax(dim=1)
        eps = torch.zeros_like(state)
        for k, (distance, variance) in enumerate(self._components(state, at)):
            eps = eps + per_sample(share[:, k] * at.sigma / variance, state) * distance
        return eps.to(x.dtype)

    def classifier(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits [N, components] of log p(y | x at time t)."""
        return self._log_joint(x.double(), Levels.of(self.process, t.double()))

    def _log_joint(self, x: Tensor, at: Levels) -> Tensor:
        """log p(k, x) up to a constant, [N, components]."""
        parts = []
        for distance, variance in self._components(x, at):
            square = distance.flatten(1).square().sum(dim=1)
            size = distance[0].numel()
            parts.append(-0.5 * size * variance.log() - 0.5 * square / variance)
        return torch.stack(parts, dim=1) + self.log_weights.to(x.device)

    def _components(self, x: Tensor, at: Levels) -> list[tuple[Tensor, Tensor]]:
        """x - alpha mean, and its variance [N], of every component."""
        return [
            (x - per_sample(at.alpha * mean, x), at.alpha.square() * variance + at.sigma.square())
            for mean, variance in zip(self.means.tolist(), self.variances.tolist(), strict=True)
        ]


def labelled_mixture(
    process: GaussianProcess | None = None,
    shape: tuple[int, ...] = (1,),
    weights: Sequence[float] = (0.3, 0.5, 0.2),
    means: Sequence[float] = (-0.9, 0.1, 0.8),
    stds: Sequence[float] = (0.15, 0.1, 0.2),
    **options: Any,
) -> ScoreNetwork:
    """A ScoreNetwork of the exact eps of a Gaussian mixture; the condition is a component.

    process  the noise, VP() by default
    weights, means, stds  of the components
    options  of ScoreNetwork

    `.module.classifier` is the exact noise-aware classifier, for with_classifier.
    """
    process = process or VP()
    module = LabelledMixture(process, weights, means, stds)
    own: dict[str, Any] = {"label_dtype": torch.float64, "null": len(means), "classes": len(means)}
    return ScoreNetwork(module, process, shape, **{"name": "labelled mixture", **own, **options})
