"""Mixtures of Gaussians in the plane with their exact energy, to compose."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..networks.energy import from_energy
from ..networks.network import ScoreNetwork
from ..processes import VP, GaussianProcess
from ..processes.levels import Levels

# (weight, (mean, mean), std) of a component
Component = tuple[float, tuple[float, float], float]


def ring(
    centre: tuple[float, float], radius: float = 1.4, std: float = 0.2, count: int = 16
) -> list[Component]:
    """`count` components around a centre at a radius, of equal weights and this std."""
    turns = (2.0 * math.pi * k / count for k in range(count))
    a, b = centre
    return [(1.0, (a + radius * math.cos(t), b + radius * math.sin(t)), std) for t in turns]


class PlaneEnergy(nn.Module):
    """E(x, t, y) = -log p_t(x) of mixture y, normalised; x [N, 2, ...] is one or several independent points.

    densities  the components of each mixture, whose weights are taken for their sum
    """

    def __init__(self, process: GaussianProcess, densities: Sequence[Sequence[Component]]) -> None:
        super().__init__()
        self.process = process
        self.tables = [
            tuple(
                torch.tensor(column, dtype=torch.float64) for column in zip(*density, strict=True)
            )
            for density in densities
        ]

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        at = Levels.of(self.process, t.double())
        each = [self._energy(x.double(), at, *table) for table in self.tables]
        return torch.stack(each, dim=1).gather(1, y[:, None])[:, 0]

    def _energy(
        self, x: Tensor, at: Levels, weights: Tensor, means: Tensor, stds: Tensor
    ) -> Tensor:
        """-log p_t [N] of a mixture."""
        points = x.reshape(len(x), 2, -1, 1)
        means = at.alpha[:, None, None, None] * means.T[:, None, :]
        variance = (at.alpha[:, None] * stds) ** 2 + at.sigma[:, None] ** 2
        square = (points - means).square().sum(dim=1)
        logs = (weights / weights.sum()).log() - (2.0 * math.pi * variance).log()
        joint = logs[:, None] - 0.5 * square / variance[:, None]
        return -joint.logsumexp(dim=-1).sum(dim=-1)


def plane_mixtures(
    *densities: Sequence[Component],
    process: GaussianProcess | None = None,
    points: int | None = None,
) -> ScoreNetwork:
    """A network of the exact energies of Gaussian mixtures in the plane; the condition says which mixture.

    densities  each a list of components (weight, (mean, mean), std)
    process    the noise, VP() by default
    points     of a sample, independent of one another, whose shape is then (2, points); None is one, (2,)
    """
    process = process or VP()
    return from_energy(
        PlaneEnergy(process, densities), process, (2,) if points is None else (2, points),
        classes=len(densities), label_dtype=torch.float64, name="plane mixtures",
    )  # fmt: skip
