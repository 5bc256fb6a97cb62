"""Sums over a sample that decide, by the op `norms`: in float64, in an order that no thread, batch or device
changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..ops.functional import norms


def dots(x: Tensor, y: Tensor) -> Tensor:
    """sum_i x_i y_i of each sample, of x and y [N, ...] alike: [N] float64."""
    if x.dtype != torch.float64:
        return norms(x, y)[:, 4]
    # In float64 the op is its definition, which pads a sample to 8192 elements. A tree: the upper half goes
    # onto the lower.
    total = (x * y).flatten(1)
    while (count := total.shape[1]) > 1:
        upper = total[:, (count + 1) // 2 :]
        total = total[:, : (count + 1) // 2].clone()
        total[:, : upper.shape[1]] += upper
    return total[:, 0]


def dot(x: Tensor, y: Tensor) -> float:
    """sum_i x_i y_i of two tensors of one shape, [C, *pixel] of a sample. Waits for the device."""
    return float(dots(x[None], y[None]))


def total(x: Tensor) -> float:
    """sum_i x_i of a tensor of a sample. Waits for the device."""
    return float(norms(x[None])[0, 0])


def norm(x: Tensor) -> float:
    """||x||_2 of a tensor of a sample. Waits for the device."""
    return math.sqrt(dot(x, x))
