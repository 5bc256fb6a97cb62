"""The layers of NCSN++ (Song et al. 2021, appendix H): embeddings, residual blocks, attention.

Their attributes are named as score_sde names the weights of its checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.embedding import Exact
from .resample import Resample

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swish": F.silu,
    "elu": F.elu,
    "relu": F.relu,
    "lrelu": partial(F.leaky_relu, negative_slope=0.2),
}


@dataclass(frozen=True)
class Style:
    """What all residual blocks of a network have in common.

    embedding    width of the time embedding, 4 nf
    kind         "biggan", which resamples within; "ddpm", which leaves that to layers of their own
    taps         of the filter that resamples; None takes the nearest pixel, and the mean of four
    rescale      sums of two branches are divided by sqrt(2)
    activation   a name of ACTIVATIONS
    groups       of the group norms; None is a quarter of the channels, at most 32
    latent       width of the latent's embedding, which scales and shifts what is normalised; 0 for none
    second       whether a block's second norm is adaptive as well
    """

    embedding: int
    kind: str = "biggan"
    taps: Sequence[float] | None = None
    rescale: bool = True
    activation: str = "swish"
    groups: int | None = None
    latent: int = 0
    second: bool = True

    def norm(self, channels: int) -> nn.GroupNorm:
        return nn.GroupNorm(self.groups or min(channels // 4, 32), channels, eps=1e-6)

    def joined(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum of two branches."""
        return (a + b) / math.sqrt(2.0) if self.rescale else a + b


def sinusoids(t: Tensor, size: int) -> Tensor:
    """[n, size]: sines, then cosines of t at the rates 10^(-4 i / (size / 2 - 1)) (Ho et al. 2020)."""
    half = size // 2
    steps = torch.arange(half, dtype=t.dtype, device=t.device)
    angle = t[:, None] * torch.exp(steps * (-math.log(10000.0) / (half - 1)))
    return F.pad(torch.cat((angle.sin(), angle.cos()), dim=1), (0, size % 2))


class Fourier(Exact):
    """[n, 2 size]: sines, then cosines of 2 pi w t, for frequencies w that were drawn once (Tancik et al.
    2020)."""

    W: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("W", torch.empty(size))

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.W * 2.0 * math.pi
        return torch.cat((angle.sin(), angle.cos()), dim=1)


class NIN(nn.Module):
    """A linear map of the channels (Lin et al. 2014), its weights as [in, out]."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.W, self.b = nn.Parameter(torch.empty(c_in, c_out)), nn.Parameter(torch.empty(c_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.W.t()[:, :, None, None], self.b)


class AdaptiveNorm(nn.Module):
    """Group norm that a latent's embedding scales and shifts (Xiao et al. 2022, appendix)."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6, affine=False)
        self.style = nn.Linear(style.latent, 2 * channels)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        scale, shift = self.style(latent)[:, :, None, None].chunk(2, dim=1)
        return scale * self.norm(x) + shift


class Attention(nn.Module):
    """Self-attention of one head over all pixels."""

    def __init__(self, style: Style, channels: int) -> None:
        super().__init__()
        self.common = style
        self.GroupNorm_0 = style.norm(channels)
        self.NIN_0, self.NIN_1 = NIN(channels, channels), NIN(channels, channels)
        self.NIN_2, self.NIN_3 = NIN(channels, channels), NIN(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x)
        q, k, v = (
            nin(h).flatten(2).transpose(1, 2) for nin in (self.NIN_0, self.NIN_1, self.NIN_2)
        )
        h = F.scaled_dot_product_attention(q, k, v)
        return self.common.joined(x, self.NIN_3(h.transpose(1, 2).reshape(x.shape)))


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut; the time embedding is added between them.

    resample  "up" or "down", of "biggan": both branches change their size before the first convolution
    """

    def __init__(self, style: Style, c_in: int, c_out: int, resample: str | None = None) -> None:
        super().__init__()
        self.common, self.act = style, ACTIVATIONS[style.activation]
        self.resample = Resample(resample == "up", taps=style.taps) if resample else None
        self.GroupNorm_0: nn.Module = (
            AdaptiveNorm(style, c_in) if style.latent else style.norm(c_in)
        )
        self.Conv_0 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.Dense_0 = nn.Linear(style.embedding, c_out)
        self.GroupNorm_1: nn.Module = (
            AdaptiveNorm(style, c_out) if style.latent and style.second else style.norm(c_out)
        )
        self.Conv_1 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut: str | None = None
        if c_in != c_out or resample:
            biggan = style.kind == "biggan"
            self.shortcut = "Conv_2" if biggan else "NIN_0"
            self.add_module(
                self.shortcut, nn.Conv2d(c_in, c_out, 1) if biggan else NIN(c_in, c_out)
            )

    def forward(
        self, x: Tensor, embedding: Tensor | None = None, latent: Tensor | None = None
    ) -> Tensor:
        """embedding  [n, width], None of a network that is not told the time."""
        h = self.act(self._normed(self.GroupNorm_0, x, latent))
        if self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.Conv_0(h)
        if embedding is not None:
            h = h + self.Dense_0(self.act(embedding))[:, :, None, None]
        h = self.Conv_1(self.act(self._normed(self.GroupNorm_1, h, latent)))
        return self.common.joined(
            x if self.shortcut is None else getattr(self, self.shortcut)(x), h
        )

    @staticmethod
    def _normed(norm: nn.Module, x: Tensor, latent: Tensor | None) -> Tensor:
        return norm(x, latent) if isinstance(norm, AdaptiveNorm) else norm(x)


class Combine(nn.Module):
    """The input's pyramid, by a 1 x 1 convolution, beside the features ("cat") or added to them ("sum")."""

    def __init__(self, pyramid: int, channels: int, method: str) -> None:
        super().__init__()
        self.Conv_0, self.method = nn.Conv2d(pyramid, channels, 1), method

    def forward(self, pyramid: Tensor, h: Tensor) -> Tensor:
        own = self.Conv_0(pyramid)
        return torch.cat((own, h), dim=1) if self.method == "cat" else own + h
