"""The laws at both ends of a likelihood: the prior of noise, and how pixels become a density's data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..processes import CLD, GaussianProcess, Point
from .likelihood_divergence import VELOCITY, WITHIN, dots, normals, uniforms

LEVELS = 256


@dataclass(frozen=True, eq=False)
class Measured:
    """Bits/dim of data, [n] float64, with the standard error of each entry, and the seeds of their draws."""

    bits_per_dim: Tensor
    error: Tensor
    seeds: tuple[int, ...]

    @property
    def mean(self) -> float:
        """bits/dim over the data."""
        return self.bits_per_dim.mean().item()

    @property
    def standard_error(self) -> float:
        """Of `mean`, as the data vary, with the errors of each in it; of one sample its own."""
        several = len(self.seeds) > 1
        return (spread(self.bits_per_dim) if several else self.error[0]).item()


def log_normal(x: Tensor, variance: float) -> Tensor:
    """log N(x; 0, variance I) of every sample x [n, ...], [n] float64."""
    size = x[0].numel()
    return -0.5 * (dots(x, x) / variance + size * math.log(2.0 * math.pi * variance))


def log_prior(process: GaussianProcess, last: Point, x: Tensor) -> Tensor:
    """The log-density [n] that a run from `last` draws its first state x from.

    N(0, I) of VP, sub-VP, discrete tables, VDM and flow matching, N(0, sigma_max^2 I) of VE and EDM (Song et
    al. 2021, appendix D.2); of CLD x ~ N(0, I) and v ~ N(0, M I).
    """
    if not isinstance(process, CLD):
        return log_normal(x, process.prior_std(last) ** 2)
    position, velocity = x.chunk(2, dim=1)
    return log_normal(position, 1.0) + log_normal(velocity, process.mass)


def velocities(process: CLD, seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """First velocities v ~ N(0, gamma M I), [n, *shape] float64."""
    drawn = normals(seeds, 0, VELOCITY, shape).double()
    return math.sqrt(process.gamma * process.mass) * drawn


def entropy(process: CLD, size: int) -> float:
    """That of those velocities, of `size` elements: size / 2 (1 + log(2 pi gamma M))."""
    return 0.5 * size * (1.0 + math.log(2.0 * math.pi * process.gamma * process.mass))


def dequantised(x: Tensor, seeds: Sequence[int], low: float, high: float) -> Tensor:
    """Pixels of 256 levels in [low, high], spread over their levels: y = (255 image + U) / 256, then scaled.

    image = (x - low) / (high - low) lies in [0, 1] and U is uniform in (0, 1) (Theis et al. 2016), so that y
    has a density in [0, 1). float64.
    """
    image = (x.double() - low) / (high - low)
    within = uniforms(seeds, 0, WITHIN, x.shape[1:]).to(x.device)
    return low + (high - low) * ((LEVELS - 1) * image + within) / LEVELS


def bits_per_dim(log_p: Tensor, size: int, range: tuple[float, float] | None) -> Tensor:
    """-log p / (size log 2) + log2(256 / (high - low)): an element's cost once its density is that of 256
    levels, which lie (high - low) / 256 apart. 7 is added for data in [-1, 1], 8 in [0, 1], and nothing
    where there is no range."""
    offset = 0.0 if range is None else math.log2(LEVELS / (range[1] - range[0]))
    return -log_p / (size * math.log(2.0)) + offset


def spread(values: Tensor, exact: bool = False) -> Tensor:
    """Standard error of the mean over the first axis: NaN where it has one entry, 0 where that is exact."""
    if len(values) < 2:
        return torch.full_like(values[0], 0.0 if exact else math.nan)
    return values.std(dim=0) / math.sqrt(len(values))
