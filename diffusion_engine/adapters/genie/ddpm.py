"""DDPM's U-Net (Ho et al. 2020) under the names of its port to torch, which GENIE trained on LSUN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ncsnpp.blocks import sinusoids


@dataclass(frozen=True)
class Sizes:
    """Of a network: ch channels on the first level, ch_mult[i] times as many on level i."""

    side: int
    c_in: int
    c_out: int
    ch: int
    ch_mult: Sequence[int]
    blocks: int
    attends_at: Sequence[int]
    with_conv: bool

    def width(self, level: int) -> int:
        return self.ch * self.ch_mult[level]

    def attends(self, level: int) -> bool:
        return self.side // 2**level in self.attends_at

    def check(self, where: str) -> None:
        """Raises ValueError where sizes do not go together."""
        times = len(self.ch_mult) - 1
        if self.side % 2**times or self.ch % 32:
            raise ValueError(
                f"{where}: an image of {self.side} is halved {times} times, and {self.ch} channels make "
                "32 groups; neither leaves a rest"
            )


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


def conv(c_in: int, c_out: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, size, padding=size // 2)


class ResBlock(nn.Module):
    """Two convolutions beside a shortcut, the time embedding added between them."""

    def __init__(self, c_in: int, c_out: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), conv(c_in, c_out)
        self.temb_proj = nn.Linear(embedding, c_out)
        self.norm2, self.conv2 = norm(c_out), conv(c_out, c_out)
        self.nin_shortcut = conv(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.temb_proj(F.silu(embedding))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class Attention(nn.Module):
    """Self-attention of one head over all pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v = (conv(channels, channels, 1) for _ in range(3))
        self.proj_out = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (layer(h).flatten(2).transpose(1, 2) for layer in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        return x + self.proj_out(h.reshape(x.shape))


class Resize(nn.Module):
    """Twice or half the size, with a convolution or without."""

    def __init__(self, up: bool, channels: int, with_conv: bool) -> None:
        super().__init__()
        self.up = up
        stride, padding = (1, 1) if up else (2, 0)
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding) if with_conv else None

    def forward(self, x: Tensor) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2.0)
            return x if self.conv is None else self.conv(x)
        return F.avg_pool2d(x, 2) if self.conv is None else self.conv(F.pad(x, (0, 1, 0, 1)))


class Level(nn.Module):
    """The residual blocks of a level, and attention behind each or none.

    widths  channels that each block reads
    """

    def __init__(self, sizes: Sizes, level: int, widths: Sequence[int]) -> None:
        super().__init__()
        width = sizes.width(level)
        self.block = nn.ModuleList([ResBlock(c, width, 4 * sizes.ch) for c in widths])
        count = len(widths) if sizes.attends(level) else 0
        self.attn = nn.ModuleList([Attention(width) for _ in range(count)])

    def at(self, i: int, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.block[i](x, embedding)
        return self.attn[i](h) if len(self.attn) else h


class Down(Level):
    """A level on the way down, which returns what the way up reads."""

    def __init__(self, sizes: Sizes, level: int, widths: Sequence[int], last: bool) -> None:
        super().__init__(sizes, level, widths)
        self.downsample = None if last else Resize(False, sizes.width(level), sizes.with_conv)

    def forward(self, h: Tensor, embedding: Tensor) -> list[Tensor]:
        made = []
        for i in range(len(self.block)):
            h = self.at(i, h, embedding)
            made.append(h)
        return made if self.downsample is None else [*made, self.downsample(h)]


class Up(Level):
    """A level on the way up, whose blocks read features of the way down besides, from their end."""

    def __init__(self, sizes: Sizes, level: int, widths: Sequence[int]) -> None:
        super().__init__(sizes, level, widths)
        self.upsample = Resize(True, sizes.width(level), sizes.with_conv) if level else None

    def forward(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for i in range(len(self.block)):
            h = self.at(i, torch.cat((h, skips.pop()), dim=1), embedding)
        return h if self.upsample is None else self.upsample(h)


class Time(nn.Module):
    """The time's embedding, [N, 4 ch], which blocks and GENIE's head read."""

    def __init__(self, ch: int) -> None:
        super().__init__()
        self.ch = ch
        self.dense = nn.ModuleList([nn.Linear(ch, 4 * ch), nn.Linear(4 * ch, 4 * ch)])

    def forward(self, label: Tensor, dtype: torch.dtype) -> Tensor:
        return self.dense[1](F.silu(self.dense[0](sinusoids(label, self.ch).to(dtype))))


class Middle(nn.Module):
    """The blocks of the smallest images."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.block_1, self.attn_1 = ResBlock(channels, channels, embedding), Attention(channels)
        self.block_2 = ResBlock(channels, channels, embedding)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x, embedding)), embedding)


class UNet(nn.Module):
    """eps(x, label), the label as it is: times in [0, 1], not in 1000 steps."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, ch = sizes, sizes.ch
        self.temb = Time(ch)
        self.conv_in = conv(sizes.c_in, ch)
        self.down = nn.ModuleList()
        last, skips, width = len(sizes.ch_mult) - 1, [ch], ch
        for level in range(last + 1):
            own = sizes.width(level)
            widths = [width] + [own] * (sizes.blocks - 1)
            self.down.append(Down(sizes, level, widths, level == last))
            width = own
            skips += [width] * (sizes.blocks + (level < last))
        self.mid, self.up = Middle(width, 4 * ch), nn.ModuleList()
        for level in range(last, -1, -1):
            own = sizes.width(level)
            read = [width] + [own] * sizes.blocks
            self.up.insert(0, Up(sizes, level, [c + skips.pop() for c in read]))
            width = own
        self.norm_out, self.conv_out = norm(width), conv(width, sizes.c_out)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        embedding = self.temb(label, x.dtype)
        skips = [self.conv_in(x)]
        for level in self.down:
            skips += level(skips[-1], embedding)
        h = self.mid(skips[-1], embedding)
        for level in reversed(self.up):
            h = level(h, embedding, skips)
        return self.conv_out(F.silu(self.norm_out(h)))
