"""NCSN++, DDPM++ and DDPM as score_sde has them, and DDGAN's generator: one U-Net, its layers in a row.

`all_modules` holds the layers in the order in which they are called; both are written here, side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from .blocks import ACTIVATIONS, Attention, Block, Combine, Fourier, Style, sinusoids
from .resample import Resample


@dataclass(frozen=True)
class Architecture:
    """A network in score_sde's words.

    image_size         the side of an image
    in_channels        of the input, [x, v] of CLD counted both
    num_channels       of the output
    nf, ch_mult        channels are nf ch_mult[i] at 1 / 2^i of the side
    num_res_blocks     residual blocks a level
    attn_resolutions   sides at which the image attends to itself
    resamp_with_conv   "ddpm" blocks change the size with a convolution
    conditional        it is told the time
    fir, fir_kernel    resampling by a filter
    skip_rescale       sums of two branches are divided by sqrt(2)
    resblock_type      "biggan" or "ddpm"
    progressive        "output_skip": the output is a sum over the levels; or "none"
    progressive_input  each level sees the input: "none", "input_skip", "residual"
    progressive_combine  an "input_skip" is added: "sum", or stands beside: "cat"
    embedding_type     of the label: "positional", or "fourier", of its logarithm
    nonlinearity       "swish", "elu", "relu", "lrelu"
    centered           data lie in [-1, 1]; False is [0, 1], of which it makes 2 x - 1
    scale_by_sigma     the output is divided by sigma: the label of "fourier", else `sigmas` at it
    sigmas             (sigma_min, sigma_max, how many): a geometric row from the largest, for that
    groups             of every group norm; None is a quarter of the channels, at most 32
    nz, z_emb_dim, n_mlp  of a generator: its latent, and the layers that embed it; nz 0 has none
    adaptive           norms of a block that the latent scales and shifts, 2 or 1
    tanh               of the output
    """

    image_size: int
    num_channels: int
    in_channels: int
    nf: int
    ch_mult: Sequence[int]
    num_res_blocks: int
    attn_resolutions: Sequence[int]
    resamp_with_conv: bool = True
    conditional: bool = True
    fir: bool = False
    fir_kernel: Sequence[int] = (1, 3, 3, 1)
    skip_rescale: bool = True
    resblock_type: str = "biggan"
    progressive: str = "none"
    progressive_input: str = "none"
    progressive_combine: str = "sum"
    embedding_type: str = "positional"
    nonlinearity: str = "swish"
    centered: bool = True
    scale_by_sigma: bool = False
    sigmas: tuple[float, float, int] | None = None
    groups: int | None = None
    nz: int = 0
    z_emb_dim: int = 256
    n_mlp: int = 3
    adaptive: int = 2
    tanh: bool = False

    @cached_property
    def taps(self) -> Sequence[int] | None:
        return tuple(self.fir_kernel) if self.fir else None

    @cached_property
    def last(self) -> int:
        """The number of the level of the smallest images."""
        return len(self.ch_mult) - 1

    @cached_property
    def style(self) -> Style:
        return Style(
            4 * self.nf, self.resblock_type, self.taps, self.skip_rescale, self.nonlinearity,
            self.groups, self.z_emb_dim if self.nz else 0, self.adaptive == 2,
        )  # fmt: skip

    def attends(self, level: int) -> bool:
        return self.image_size // 2**level in self.attn_resolutions


def sigma_row(low: float, high: float, count: int) -> Tensor:
    """Levels from the largest to the smallest, evenly in their logarithm, float64."""
    return torch.from_numpy(np.exp(np.linspace(np.log(high), np.log(low), count)))


def conv(c_in: int, c_out: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1)


def embedding(a: Architecture) -> Iterator[nn.Module]:
    """Layers that embed the label."""
    if a.embedding_type == "fourier":
        yield Fourier(a.nf)
    if a.conditional:
        yield nn.Linear(a.nf * (2 if a.embedding_type == "fourier" else 1), 4 * a.nf)
        yield nn.Linear(4 * a.nf, 4 * a.nf)


def encoder(a: Architecture, skips: list[int]) -> Iterator[nn.Module]:
    """Layers down to the smallest images; `skips` gets the channels of what the decoder reads."""
    channels, pyramid = a.nf, a.in_channels
    yield conv(a.in_channels, a.nf)
    skips.append(channels)
    for level, factor in enumerate(a.ch_mult):
        for _ in range(a.num_res_blocks):
            yield Block(a.style, channels, a.nf * factor)
            channels = a.nf * factor
            if a.attends(level):
                yield Attention(a.style, channels)
            skips.append(channels)
        if level == a.last:
            return
        yield resized(a, channels, "down")
        if a.progressive_input == "input_skip":
            yield Combine(pyramid, channels, a.progressive_combine)
            channels *= 2 if a.progressive_combine == "cat" else 1
        elif a.progressive_input == "residual":
            yield Resample(False, pyramid, channels, a.taps)
            pyramid = channels
        skips.append(channels)


def resized(a: Architecture, channels: int, way: str) -> nn.Module:
    """The layer that changes the size of features."""
    if a.resblock_type == "biggan":
        return Block(a.style, channels, channels, way)
    width = channels if a.resamp_with_conv else 0
    return Resample(way == "up", width, width, a.taps)


def decoder(a: Architecture, skips: list[int]) -> Iterator[nn.Module]:
    """Layers from the smallest images up; takes `skips` from its end."""
    channels = skips[-1]
    yield Block(a.style, channels, channels)
    yield Attention(a.style, channels)
    yield Block(a.style, channels, channels)
    for level in range(a.last, -1, -1):
        for _ in range(a.num_res_blocks + 1):
            yield Block(a.style, channels + skips.pop(), a.nf * a.ch_mult[level])
            channels = a.nf * a.ch_mult[level]
        if a.attends(level):
            yield Attention(a.style, channels)
        if a.progressive == "output_skip" or level == 0:
            yield a.style.norm(channels)
            yield conv(channels, a.num_channels)
        if level:
            yield resized(a, channels, "up")


class PixelNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-8) of a vector (Karras et al. 2018)."""

    def forward(self, z: Tensor) -> Tensor:
        return z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)


class NCSNpp(nn.Module):
    """Called as module(x, label), a generator as module(x, label, z).

    x      [N, in_channels, side, side]
    label  [N], which is embedded as it is; whole numbers where `sigmas` are looked up
    z      [N, nz]
    """

    sigmas: Tensor | None

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a, skips = architecture, list[int]()
        self.a, self.act = a, ACTIVATIONS[a.nonlinearity]
        out, into = a.progressive == "output_skip", a.progressive_input == "input_skip"
        self.pyramid_upsample = Resample(True, taps=a.taps) if out else None
        self.pyramid_downsample = Resample(False, taps=a.taps) if into else None
        self.all_modules = nn.ModuleList([*embedding(a), *encoder(a, skips), *decoder(a, skips)])
        if a.nz:
            layers: list[nn.Module] = [PixelNorm(), nn.Linear(a.nz, a.z_emb_dim), nn.SiLU()]
            for _ in range(a.n_mlp):
                layers += [nn.Linear(a.z_emb_dim, a.z_emb_dim), nn.SiLU()]
            self.z_transform = nn.Sequential(*layers)
        row = sigma_row(*a.sigmas) if a.sigmas is not None else None
        self.register_buffer("sigmas", row, persistent=False)

    def forward(self, x: Tensor, label: Tensor, z: Tensor | None = None) -> Tensor:
        layers = iter(self.all_modules)
        latent = None if z is None else self.z_transform(z)
        time = self._embedded(label, x.dtype, layers)
        h = x if self.a.centered else 2.0 * x - 1.0
        skips = self._down(h, time, latent, layers)
        h = self._up(skips, time, latent, layers)
        if self.a.scale_by_sigma:
            h = h / self._sigma(label)[:, None, None, None].to(h.dtype)
        return h.tanh() if self.a.tanh else h

    def _sigma(self, label: Tensor) -> Tensor:
        if self.a.embedding_type == "fourier":
            return label
        assert self.sigmas is not None, "an architecture that is scaled by sigma has its sigmas"
        return self.sigmas[label.long()]

    def _embedded(
        self, label: Tensor, dtype: torch.dtype, layers: Iterator[nn.Module]
    ) -> Tensor | None:
        t = label if label.is_floating_point() else label.to(dtype)
        fourier = self.a.embedding_type == "fourier"
        time = next(layers)(t.log()) if fourier else sinusoids(t, self.a.nf)
        if not self.a.conditional:
            return None
        time = next(layers)(time.to(dtype))
        return next(layers)(self.act(time))

    def _down(
        self, x: Tensor, time: Tensor | None, latent: Tensor | None, layers: Iterator[nn.Module]
    ) -> list[Tensor]:
        """The features that the way up reads, the last of which are the smallest."""
        a, pyramid = self.a, x
        h = next(layers)(x)
        skips = [h]
        for level in range(a.last + 1):
            for _ in range(a.num_res_blocks):
                h = next(layers)(h, time, latent)
                if a.attends(level):
                    h = next(layers)(h)
                skips.append(h)
            if level == a.last:
                break
            h = self._resized(next(layers), h, time, latent)
            if self.pyramid_downsample is not None:
                pyramid = self.pyramid_downsample(pyramid)
                h = next(layers)(pyramid, h)
            elif a.progressive_input == "residual":
                h = pyramid = a.style.joined(next(layers)(pyramid), h)
            skips.append(h)
        return skips

    def _up(
        self, skips: list[Tensor], time: Tensor | None, latent: Tensor | None,
        layers: Iterator[nn.Module],
    ) -> Tensor:  # fmt: skip
        a, up = self.a, self.pyramid_upsample
        image: Tensor | None = None
        h = next(layers)(skips[-1], time, latent)
        h = next(layers)(h)
        h = next(layers)(h, time, latent)
        for level in range(a.last, -1, -1):
            for _ in range(a.num_res_blocks + 1):
                h = next(layers)(torch.cat((h, skips.pop()), dim=1), time, latent)
            if a.attends(level):
                h = next(layers)(h)
            if up is not None or level == 0:
                own = self.act(next(layers)(h))
                own = next(layers)(own)
                image = own if up is None or image is None else own + up(image)
            if level:
                h = self._resized(next(layers), h, time, latent)
        assert image is not None, "the last level makes it"
        return image

    @staticmethod
    def _resized(layer: nn.Module, h: Tensor, time: Tensor | None, latent: Tensor | None) -> Tensor:
        return layer(h, time, latent) if isinstance(layer, Block) else layer(h)
