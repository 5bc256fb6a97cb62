"""The residual block of EDM's networks (Karras et al. 2022, section B of its appendix)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..layers.attention import attend, heads_of
from ..layers.resample import BOX, Resampler


def norm(channels: int, eps: float) -> nn.GroupNorm:
    """Up to 32 groups of 4 channels or more. Raises ValueError where channels are left over."""
    groups = min(32, channels // 4)
    if channels % max(groups, 1):
        raise ValueError(
            f"a norm of {channels} channels has {groups} groups, which do not divide them"
        )
    return nn.GroupNorm(groups, channels, eps)


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share.

    embedded    size of the embedding of time and class
    eps         of the norms
    adaptive    the embedding scales and shifts the second norm's output; else it is added to its input
    projected   a branch around a change of size has a 1x1 convolution
    scale       of the sum of both branches
    taps        of the filter at changes of size
    head        channels of a head of attention; None has one head
    """

    embedded: int
    eps: float = 1e-5
    adaptive: bool = True
    projected: bool = False
    scale: float = 1.0
    taps: tuple[int, ...] = BOX
    head: int | None = 64


class Block(nn.Module):
    """Two 3x3 convolutions, each behind a norm and SiLU, around them a branch, and attention behind them.

    resize  "down" or "up" before the first convolution, and in the branch
    """

    def __init__(
        self, c_in: int, c_out: int, style: Style, attention: bool = False, resize: str = ""
    ) -> None:
        super().__init__()
        self.style, self.resize = style, resize
        self.filter = Resampler(style.taps) if resize else None
        self.norm0, self.act0 = norm(c_in, style.eps), nn.SiLU()
        self.conv0 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.affine = nn.Linear(style.embedded, c_out * (2 if style.adaptive else 1))
        self.norm1, self.act1 = norm(c_out, style.eps), nn.SiLU()
        self.conv1 = nn.Conv2d(c_out, c_out, 3, padding=1)
        changes = c_in != c_out or (bool(resize) and style.projected)
        self.skip = nn.Conv2d(c_in, c_out, 1) if changes else None
        head = style.head or c_out
        self.heads = heads_of(c_out, head) if attention and c_out >= head else 0
        if self.heads:
            self.norm2 = norm(c_out, style.eps)
            self.qkv = nn.Conv2d(c_out, 3 * c_out, 1)
            self.proj = nn.Conv2d(c_out, c_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv0(self._resized(self.act0(self.norm0(x))))
        told = self.affine(embedding)[:, :, None, None]
        if self.style.adaptive:
            scale, shift = told.chunk(2, dim=1)
            h = self.act1(torch.addcmul(shift, self.norm1(h), scale + 1.0))
        else:
            h = self.act1(self.norm1(h + told))
        around = self._resized(x)
        if self.skip is not None:
            around = self.skip(around)
        x = (self.conv1(h) + around) * self.style.scale
        if self.heads:
            seen = attend(self.qkv(self.norm2(x)), self.heads, "n c k")
            x = (self.proj(seen) + x) * self.style.scale
        return x

    def _resized(self, x: Tensor) -> Tensor:
        if self.filter is None:
            return x
        return self.filter.down(x) if self.resize == "down" else self.filter.up(x)
