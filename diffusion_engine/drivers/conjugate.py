"""Conjugate gradients, for every sample of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .sums import dots


def conjugate_gradients(matrix: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    """x of matrix x = b for every sample, from x = 0 (Hestenes & Stiefel 1952).

    matrix  a symmetric, positive semi-definite function of [N, ...] like b
    steps   as many for all; a sample that is done stays where it is, and so does one of which the matrix
            shows no positive curvature
    """
    done = torch.finfo(b.dtype).eps ** 2 * dots(b, b)
    x, left, way, square = torch.zeros_like(b), b, b, dots(b, b)
    for _ in range(steps):
        ahead = matrix(way)
        curvature = dots(way, ahead)
        goes = (square > done) & (curvature > 0.0)
        step = torch.where(goes, square / curvature, 0.0)
        x, left = x + weighted(step, way), left - weighted(step, ahead)
        square, before = dots(left, left), square
        way = left + weighted(torch.where(goes, square / before, 0.0), way)
    return x


def weighted(number: Tensor, x: Tensor) -> Tensor:
    """number [N] times x [N, ...], in x's dtype."""
    return number.to(x.dtype).view(-1, *[1] * (x.ndim - 1)) * x
