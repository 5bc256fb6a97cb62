"""Resampling by 2 with a finite impulse response: zeros inserted or rows dropped around a small filter.

Zhang 2019 filters before it drops rows; StyleGAN2 (Karras et al. 2020) filters both ways, with [1, 3, 3, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Filter(nn.Module):
    """Convolution of every channel with the outer product of `taps`, which are scaled to sum 1.

    taps  an even number of them; a constant image stays one, but at its border
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float]) -> None:
        super().__init__()
        # On the CPU, whatever the default device: what is built on "meta" is filled from a checkpoint later,
        # and checkpoints have no filters.
        row = torch.tensor(list(taps), dtype=torch.float32, device="cpu")
        kernel = torch.outer(row, row)
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None], persistent=False)
        self.pad = (len(taps) - 2) // 2

    def up(self, x: Tensor) -> Tensor:
        """Twice the size: zeros between the pixels, filtered, at four times the weight."""
        weight = 4.0 * self.kernel.expand(x.shape[1], -1, -1, -1)
        return F.conv_transpose2d(x, weight, stride=2, padding=self.pad, groups=x.shape[1])

    def down(self, x: Tensor) -> Tensor:
        """Half the size: every second pixel of the filtered image."""
        return self.along(x, self.pad, stride=2)

    def along(self, x: Tensor, pad: int, stride: int = 1) -> Tensor:
        """The filtered image, `pad` pixels of zeros standing around the given one."""
        weight = self.kernel.flip(2, 3).expand(x.shape[1], -1, -1, -1)
        return F.conv2d(x, weight, stride=stride, padding=pad, groups=x.shape[1])


class Resample(nn.Module):
    """Twice or half the size, by the filter or without one, with a 3 x 3 convolution or without.

    On the way down a convolution of stride 2 follows the filter (`Conv2d_0`), or, without one (taps None), a
    row and a column of zeros (`Conv_0`). On the way up it follows the nearest pixels, and no filter.
    """

    def __init__(
        self, up: bool, c_in: int = 0, c_out: int = 0, taps: Sequence[float] | None = None
    ) -> None:
        """c_in, c_out  channels of the convolution, 0 for none."""
        super().__init__()
        self.up = up
        self.filter = Filter(taps) if taps is not None else None
        self.conv: str | None = None
        if c_in:
            self.conv = "Conv_0" if taps is None else "Conv2d_0"
            stride, padding = (1, 1) if up else (2, 0)
            self.add_module(self.conv, nn.Conv2d(c_in, c_out, 3, stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        conv = getattr(self, self.conv) if self.conv else None
        if self.up:
            x = F.interpolate(x, scale_factor=2.0) if self.filter is None else self.filter.up(x)
            return x if conv is None else conv(x)
        if self.filter is None:
            return F.avg_pool2d(x, 2) if conv is None else conv(F.pad(x, (0, 1, 0, 1)))
        if conv is None:
            return self.filter.down(x)
        return conv(self.filter.along(x, self.filter.pad + 1))
