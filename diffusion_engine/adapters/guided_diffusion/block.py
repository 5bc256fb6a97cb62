"""Layers of ADM (Dhariwal & Nichol 2021), under the names of guided-diffusion's state_dict."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.attention import attend, heads_of
from ..layers.resample import half, twice

GROUPS = 32


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels)


@dataclass(frozen=True)
class Style:
    """What all layers of a network share.

    embedded  size of the embedding of time and class
    film      it scales and shifts the second norm's output; else it is added to its input
    heads     of attention, unless head_channels says how many channels one has
    order     of heads n, channels c and parts k on the channel axis: "n k c" of old checkpoints, "k n c"
    flat      attention's 1x1 convolutions are over one axis, with weights [out, in, 1]
    updown    residual blocks change the size; else a 3x3 convolution does
    """

    embedded: int
    film: bool
    heads: int
    heads_up: int
    head_channels: int | None
    order: str
    flat: bool
    updown: bool


class ResBlock(nn.Module):
    """Two 3x3 convolutions behind norm and SiLU, around them a branch; resize is "down", "up" or ""."""

    def __init__(self, c_in: int, c_out: int, style: Style, resize: str = "") -> None:
        super().__init__()
        self.film, self.resize = style.film, resize
        self.in_layers = nn.Sequential(
            norm(c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1)
        )  # fmt: skip
        told = 2 * c_out if style.film else c_out
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(style.embedded, told))
        self.out_layers = nn.Sequential(
            norm(c_out), nn.SiLU(), nn.Identity(), nn.Conv2d(c_out, c_out, 3, padding=1)
        )  # the third is a dropout
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.in_layers[2](self._resized(self.in_layers[1](self.in_layers[0](x))))
        told = self.emb_layers(embedding)[:, :, None, None]
        if self.film:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.out_layers[0](h), scale + 1.0)
            h = self.out_layers[3](self.out_layers[1](h))
        else:
            h = self.out_layers(h + told)
        return self.skip_connection(self._resized(x)) + h

    def _resized(self, x: Tensor) -> Tensor:
        if not self.resize:
            return x
        return half(x) if self.resize == "down" else twice(x)


class AttentionBlock(nn.Module):
    """Attention over all positions, and what it is added to."""

    def __init__(self, channels: int, style: Style, heads: int) -> None:
        super().__init__()
        head = style.head_channels or channels // heads
        self.heads, self.order, self.flat = heads_of(channels, head), style.order, style.flat
        conv = nn.Conv1d if style.flat else nn.Conv2d
        self.norm = norm(channels)
        self.qkv, self.proj_out = conv(channels, 3 * channels, 1), conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        h = self.qkv(h.flatten(2) if self.flat else h)
        h = self.proj_out(attend(h, self.heads, self.order))
        return x + (h.view_as(x) if self.flat else h)


class Downsample(nn.Module):
    """Half the size, by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    """Twice the size, and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(twice(x))


class Stage(nn.Sequential):
    """Layers in a row, of which residual blocks are given the embedding."""

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResBlock) else layer(x)
        return x


class Embedding(nn.Sequential):
    """The embedding of the waves of a label."""

    def __init__(self, size: int, embedded: int) -> None:
        super().__init__(nn.Linear(size, embedded), nn.SiLU(), nn.Linear(embedded, embedded))


class AttentionPool(nn.Module):
    """What the mean of all positions sees of them (Radford et al. 2021, CLIP)."""

    def __init__(self, positions: int, channels: int, head: int, outputs: int) -> None:
        super().__init__()
        self.heads = heads_of(channels, head)
        self.positional_embedding = nn.Parameter(torch.zeros(channels, positions + 1))
        self.qkv_proj = nn.Conv1d(channels, 3 * channels, 1)
        self.c_proj = nn.Conv1d(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        flat = torch.cat([flat.mean(dim=2, keepdim=True), flat], dim=2) + self.positional_embedding
        seen = attend(self.qkv_proj(flat), self.heads, "k n c")
        return F.conv1d(seen[:, :, :1], self.c_proj.weight, self.c_proj.bias)[:, :, 0]
