"""Images at half and twice their size, as means and copies of pixels or through another separable filter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BOX = (1, 1)


def kernel(taps: Sequence[float]) -> Tensor:
    """taps taps^T, of the sum 1."""
    # On the CPU, whatever the default device is: a network is built on "meta", and no file has its filters.
    line = torch.tensor(list(taps), dtype=torch.float32, device="cpu")
    return line.outer(line) / line.sum() ** 2


def half(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels."""
    return F.avg_pool2d(x, 2)


def twice(x: Tensor) -> Tensor:
    """Each pixel four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Resampler(nn.Module):
    """Changes of size through a filter with an even number of taps; it has no weights."""

    kernel: Tensor | None

    def __init__(self, taps: Sequence[float] = BOX) -> None:
        super().__init__()
        self.pad = (len(taps) - 1) // 2
        made = None if tuple(taps) == BOX else kernel(taps)[None, None]
        self.register_buffer("kernel", made, persistent=False)

    def down(self, x: Tensor, pad: int | None = None) -> Tensor:
        """Every second pixel of the filtered image, with `pad` zeros around it, the filter's own if None."""
        if self.kernel is None:
            return half(x)
        weight = self.kernel.expand(x.shape[1], -1, -1, -1)
        pad = self.pad if pad is None else pad
        return F.conv2d(x, weight, stride=2, padding=pad, groups=x.shape[1])

    def up(self, x: Tensor) -> Tensor:
        """The transpose of `down`, times 4."""
        if self.kernel is None:
            return twice(x)
        weight = 4.0 * self.kernel.expand(x.shape[1], -1, -1, -1)
        return F.conv_transpose2d(x, weight, stride=2, padding=self.pad, groups=x.shape[1])
