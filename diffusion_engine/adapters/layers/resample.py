"""Images at half and twice their size, through a separable filter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BOX = (1, 1)


def kernel(taps: Sequence[float]) -> Tensor:
    """taps taps^T, of the sum 1."""
    line = torch.tensor(taps, dtype=torch.float32)
    return line.outer(line) / line.sum() ** 2


def down(x: Tensor, taps: Sequence[float] = BOX, padding: int | None = None) -> Tensor:
    """Every second pixel of the filtered image; the filter has an even number of taps."""
    pad = (len(taps) - 1) // 2 if padding is None else padding
    if tuple(taps) == BOX:
        return F.avg_pool2d(x, 2, padding=pad)
    weight = kernel(taps).to(x.device, x.dtype).expand(x.shape[1], 1, -1, -1)
    return F.conv2d(x, weight, stride=2, padding=pad, groups=x.shape[1])


def up(x: Tensor, taps: Sequence[float] = BOX) -> Tensor:
    """The transpose of `down`, times 4."""
    if tuple(taps) == BOX:
        return F.interpolate(x, scale_factor=2, mode="nearest")
    weight = (4.0 * kernel(taps)).to(x.device, x.dtype).expand(x.shape[1], 1, -1, -1)
    pad = (len(taps) - 1) // 2
    return F.conv_transpose2d(x, weight, stride=2, padding=pad, groups=x.shape[1])
