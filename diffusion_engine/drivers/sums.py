"""Sums over a sample that decide, in float64 and in an order that no thread, batch or device changes."""

from __future__ import annotations

import math

from torch import Tensor


def dot(x: Tensor, y: Tensor) -> float:
    """sum_i x_i y_i of two tensors of one shape, [C, *pixel] of a sample. Waits for the device."""
    total = (x.double() * y.double()).reshape(-1)
    while (count := len(total)) > 1:  # a tree: the upper half is added to the lower
        upper = total[(count + 1) // 2 :]
        total = total[: (count + 1) // 2].clone()
        total[: len(upper)] += upper
    return float(total[0])


def norm(x: Tensor) -> float:
    """||x||_2 of a tensor of a sample."""
    return math.sqrt(dot(x, x))
