"""Layers that keep the magnitude of what passes through them (Karras et al. 2024, arXiv 2312.02696).

Weights are normalised once, when they are read (reader.py); the equations are the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.attention import attend, heads_of
from ..layers.embedding import Exact
from ..layers.resample import BOX, Resampler

EPS = 1e-4


def unit(x: Tensor, dim: int = 1) -> Tensor:
    """x / (eps + its root mean square over `dim`), eq. 30."""
    norm = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    return x / (EPS + norm / math.sqrt(x.shape[dim])).to(x.dtype)


def silu(x: Tensor) -> Tensor:
    """SiLU over the size of its output for a normal input, eq. 81."""
    return F.silu(x) / 0.596


def mixed(a: Tensor, b: Tensor, t: float) -> Tensor:
    """((1 - t) a + t b) / sqrt((1 - t)^2 + t^2), eq. 88."""
    return torch.lerp(a, b, t) / math.hypot(1.0 - t, t)


def joined(a: Tensor, b: Tensor, t: float) -> Tensor:
    """a and b on the channel axis, each to its share of the magnitude whatever its channels, eq. 103."""
    n_a, n_b = a.shape[1], b.shape[1]
    size = math.sqrt(n_a + n_b) / math.hypot(1.0 - t, t)
    return torch.cat([size / math.sqrt(n_a) * (1.0 - t) * a, size / math.sqrt(n_b) * t * b], dim=1)


def conv(c_in: int, c_out: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)


def linear(c_in: int, c_out: int) -> nn.Linear:
    return nn.Linear(c_in, c_out, bias=False)


class MPFourier(Exact):
    """sqrt(2) cos(freqs label + phases), which are a checkpoint's (eq. 75)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(size))
        self.register_buffer("phases", torch.zeros(size))

    def forward(self, label: Tensor) -> Tensor:
        return (label.float()[:, None] * self.freqs + self.phases).cos() * math.sqrt(2.0)


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share; the names are those of EDM2's Block."""

    embedded: int
    resample_filter: tuple[int, ...] = BOX
    channels_per_head: int = 64
    res_balance: float = 0.3
    attn_balance: float = 0.3
    clip_act: float | None = 256.0


class Block(nn.Module):
    """A block of the encoder, which normalises its input, or of the decoder (figure 21).

    resize  "down" or "up", before all else
    """

    def __init__(
        self, c_in: int, c_out: int, style: Style, decodes: bool, attention: bool = False, resize: str = ""
    ) -> None:  # fmt: skip
        super().__init__()
        self.style, self.decodes, self.resize = style, decodes, resize
        self.filter = Resampler(style.resample_filter) if resize else None
        attends = attention and c_out >= style.channels_per_head
        self.heads = heads_of(c_out, style.channels_per_head) if attends else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.conv_res0 = conv(c_in if decodes else c_out, c_out, 3)
        self.emb_linear = linear(style.embedded, c_out)
        self.conv_res1 = conv(c_out, c_out, 3)
        self.conv_skip = conv(c_in, c_out, 1) if c_in != c_out else None
        self.attn_qkv = conv(c_out, 3 * c_out, 1) if self.heads else None
        self.attn_proj = conv(c_out, c_out, 1) if self.heads else None

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.filter is not None:
            x = self.filter.down(x) if self.resize == "down" else self.filter.up(x)
        skip = x if self.conv_skip is None else self.conv_skip(x)
        if not self.decodes:
            x = skip = unit(skip)
        scale = self.emb_linear(embedding) * self.emb_gain + 1.0
        h = silu(self.conv_res0(silu(x)) * scale[:, :, None, None])
        x = mixed(skip, self.conv_res1(h), self.style.res_balance)
        if self.attn_qkv is not None and self.attn_proj is not None:
            x = mixed(x, self.attn_proj(self._seen(self.attn_qkv(x))), self.style.attn_balance)
        limit = self.style.clip_act
        return x if limit is None else x.clamp(-limit, limit)

    def _seen(self, qkv: Tensor) -> Tensor:
        """Attention, each head's q, k and v at unit magnitude."""
        parts = qkv.unflatten(1, (self.heads, -1, 3))
        return attend(unit(parts, dim=2).flatten(1, 3), self.heads, "n c k")
