"""The networks DDPM++ and NCSN++ as EDM has them (Song et al. 2021; Karras et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.embedding import Fourier, sinusoids
from ..layers.resample import Resampler
from .block import Block, Style, norm

EMBEDDINGS = ("positional", "fourier")
ENCODERS = ("standard", "skip", "residual")
DECODERS = ("standard", "skip")


class SongUNet(nn.Module):
    """F(x, label, classes [n, label_dim]). The arguments have the names of EDM's, with its choices:

    embedding_type   "positional" of DDPM++, "fourier" of NCSN++
    encoder_type     "standard"; "skip" adds the shrunken image to each level, "residual" (NCSN++) what was
                     made of it at the level above
    decoder_type     "standard"; "skip" sums an image of every level
    resample_filter  the taps at changes of size
    """

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int,
        model_channels: int, channel_mult: Sequence[int], channel_mult_emb: int, num_blocks: int,
        attn_resolutions: Sequence[int], embedding_type: str, channel_mult_noise: int, encoder_type: str,
        decoder_type: str, resample_filter: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        embedded, self.size = model_channels * channel_mult_emb, model_channels * channel_mult_noise
        self.encoder_type, self.decoder_type = encoder_type, decoder_type
        self.filter = Resampler(resample_filter)
        self.style = Style(
            embedded, eps=1e-6, adaptive=False, projected=True, scale=math.sqrt(0.5),
            taps=tuple(resample_filter), head=None,
        )  # fmt: skip
        self.num_blocks, self.attending = num_blocks, tuple(attn_resolutions)
        self.map_noise = Fourier(self.size) if embedding_type == "fourier" else None
        self.map_label = nn.Linear(label_dim, self.size) if label_dim else None
        self.map_layer0 = nn.Linear(self.size, embedded)
        self.map_layer1 = nn.Linear(embedded, embedded)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        self.widths = [model_channels * mult for mult in channel_mult]
        self.names = [f"{side}x{side}" for side in self._sides(img_resolution)]
        width, skips = self._encoder(img_resolution, in_channels, model_channels)
        self._decoder(img_resolution, out_channels, width, skips)

    def _sides(self, side: int) -> list[int]:
        return [side >> level for level in range(len(self.widths))]

    def _encoder(self, side: int, channels: int, width: int) -> tuple[int, list[int]]:
        """Makes `enc`; returns the last width and those of the skips."""
        self.enc[f"{self.names[0]}_conv"] = nn.Conv2d(channels, width, 3, padding=1)
        skips, beside = [width], channels
        for level, (name, wide) in enumerate(zip(self.names, self.widths, strict=True)):
            if level:
                self.enc[f"{name}_down"] = Block(width, width, self.style, resize="down")
                skips.append(width)
                if self.encoder_type == "skip":
                    self.enc[f"{name}_aux_skip"] = nn.Conv2d(beside, width, 1)
                elif self.encoder_type == "residual":
                    pad = 1 + self.filter.pad  # the filter behind it has none
                    self.enc[f"{name}_aux_residual"] = nn.Conv2d(beside, width, 3, padding=pad)
                    beside = width
            for i in range(self.num_blocks):
                attends = side >> level in self.attending
                self.enc[f"{name}_block{i}"] = Block(width, wide, self.style, attends)
                width = wide
                skips.append(width)
        return width, skips

    def _decoder(self, side: int, channels: int, width: int, skips: list[int]) -> None:
        for level in reversed(range(len(self.widths))):
            name, wide = self.names[level], self.widths[level]
            if level == len(self.widths) - 1:
                self.dec[f"{name}_in0"] = Block(width, width, self.style, attention=True)
                self.dec[f"{name}_in1"] = Block(width, width, self.style)
            else:
                self.dec[f"{name}_up"] = Block(width, width, self.style, resize="up")
            for i in range(self.num_blocks + 1):
                attends = i == self.num_blocks and side >> level in self.attending
                block = Block(width + skips.pop(), wide, self.style, attends)
                self.dec[f"{name}_block{i}"] = block
                width = wide
            if self.decoder_type == "skip" or level == 0:
                self.dec[f"{name}_aux_norm"] = norm(width, self.style.eps)
                self.dec[f"{name}_aux_conv"] = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        embedding = self.embedded(x, label, classes)
        x, skips = self._encoded(x, embedding)
        out: Tensor | None = None
        for level in reversed(range(len(self.names))):
            name = self.names[level]
            for part in ("in0", "in1") if level == len(self.names) - 1 else ("up",):
                x = self.dec[f"{name}_{part}"](x, embedding)
            for i in range(self.num_blocks + 1):
                x = self.dec[f"{name}_block{i}"](torch.cat([x, skips.pop()], dim=1), embedding)
            if f"{name}_aux_norm" in self.dec:
                made = self.dec[f"{name}_aux_conv"](F.silu(self.dec[f"{name}_aux_norm"](x)))
                out = made if out is None else made + self.filter.up(out)
        assert out is not None, "the last level has made one"
        return out

    def _encoded(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The encoder's last output, and all of them."""
        beside = x
        x = self.enc[f"{self.names[0]}_conv"](x)
        skips = [x]
        for level, name in enumerate(self.names):
            if level:
                x = self.enc[f"{name}_down"](x, embedding)
                if self.encoder_type == "skip":
                    beside = self.filter.down(beside)
                    x = x + self.enc[f"{name}_aux_skip"](beside)
                elif self.encoder_type == "residual":
                    made = self.filter.down(self.enc[f"{name}_aux_residual"](beside), pad=0)
                    x = beside = (x + made) * math.sqrt(0.5)
                skips.append(x)
            for i in range(self.num_blocks):
                x = self.enc[f"{name}_block{i}"](x, embedding)
                skips.append(x)
        return x, skips

    def embedded(self, x: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        """The embedding of time and class."""
        if self.map_noise is not None:
            cosines, sines = self.map_noise(label)
        else:
            cosines, sines = sinusoids(label, self.size, endpoint=True)
        made = torch.cat([sines, cosines], dim=1).to(x.dtype)
        if self.map_label is not None and classes is not None:
            made = made + self.map_label(classes * math.sqrt(self.map_label.in_features))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(made))))
