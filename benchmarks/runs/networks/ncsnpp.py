"""W3, the NCSN++ of CLD (Dockhorn et al. 2022; blocks of Song et al. 2021) for 32x32 images: reads [x, v] and
returns the score of v, in as many channels as W3's figures count: 128 x [1, 2, 2, 2], 8 blocks a level,
attention at 16 x 16, Fourier features of log t, resampling with [1, 3, 3, 1], the input carried along."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .ddpmpp import CHANNELS, EMB, HALF, Block, norm

WIDTHS, BLOCKS, COLOURS = (1, 2, 2, 2), 8, 6


def filtered(x: Tensor, up: bool = False) -> Tensor:
    """x at half the size, or twice, through the filter [1, 3, 3, 1] / 8 in both dimensions."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8.0
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 4, 4)
    if up:
        return F.conv_transpose2d(x, 4.0 * kernel, stride=2, padding=1, groups=x.shape[1])
    return F.conv2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


class Filtered(Block):
    """A Block that resamples with the filter."""

    def sized(self, x: Tensor) -> Tensor:
        return filtered(x, self.resample == "up") if self.resample else x


class NCSNpp(nn.Module):
    """o(u, t) for u = [x, v] [B, 6, 32, 32] and t in (0, 1], one for all or [B]."""

    def __init__(self) -> None:
        super().__init__()
        widths = [CHANNELS * width for width in WIDTHS]
        self.register_buffer("rate", 16.0 * torch.randn(CHANNELS))
        self.time = nn.Sequential(
            nn.Linear(2 * CHANNELS, EMB), nn.SiLU(), nn.Linear(EMB, EMB), nn.SiLU()
        )
        self.stem = nn.Conv2d(COLOURS, widths[0], 3, padding=1)
        skips, down, carried = [widths[0]], [], []
        for level, width in enumerate(widths):
            if level:
                down.append(Filtered(skips[-1], skips[-1], "down"))
                source = COLOURS if level == 1 else widths[level - 2]
                carried.append(nn.Conv2d(source, skips[-1], 3, padding=1))
                skips.append(skips[-1])
            for _ in range(BLOCKS):
                down.append(Filtered(skips[-1], width, attention=level == 1))
                skips.append(width)
        c, up = skips[-1], []
        self.middle = nn.ModuleList([Filtered(c, c, attention=True), Filtered(c, c)])
        for level, width in reversed(list(enumerate(widths))):
            if level < len(widths) - 1:
                up.append(Filtered(c, c, "up"))
            for i in range(BLOCKS + 1):
                last = level == 1 and i == BLOCKS
                up.append(Filtered(c + skips.pop(), width, attention=last))
                c = width
        self.down, self.up, self.carried = map(nn.ModuleList, (down, up, carried))
        self.norm, self.head = norm(c), nn.Conv2d(c, COLOURS, 3, padding=1)

    def forward(self, u: Tensor, t: Tensor) -> Tensor:
        angle = 2.0 * math.pi * t.expand(u.shape[0]).float().log()[:, None] * self.rate
        emb = self.time(torch.cat([angle.sin(), angle.cos()], dim=1).to(u.dtype))
        x, along, carried = self.stem(u), u, iter(self.carried)
        skips = [x]
        for block in self.down:
            x = block(x, emb)
            if block.resample:
                along = x = (x + next(carried)(filtered(along))) * HALF
            skips.append(x)
        for block in self.middle:
            x = block(x, emb)
        for block in self.up:
            if not block.resample:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, emb)
        return self.head(F.silu(self.norm(x)))
