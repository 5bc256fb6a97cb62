"""ADM's network, and the half of it that is a classifier (Dhariwal & Nichol 2021)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.embedding import NO_CLASSES, sinusoids
from .block import (
    AttentionBlock,
    AttentionPool,
    Downsample,
    Embedding,
    ResBlock,
    Stage,
    Style,
    Upsample,
    norm,
)

POOLS = ("adaptive", "attention", "spatial", "spatial_v2")
POOLED = 2048  # width of the layer within the spatial pools


@dataclass(frozen=True)
class Form:
    """Sizes of a network.

    size       channels of the waves of a label
    widths     channels of each level
    blocks     residual blocks of a level
    attending  by how much an image is shrunk where blocks attend
    """

    channels: int
    outputs: int
    size: int
    widths: Sequence[int]
    blocks: int
    attending: Collection[int]
    style: Style


def encoder(form: Form) -> tuple[nn.ModuleList, list[int]]:
    """The blocks that shrink, and the channels that each makes."""
    style, width = form.style, form.widths[0]
    made = [Stage(nn.Conv2d(form.channels, width, 3, padding=1))]
    skips = [width]
    for level, wide in enumerate(form.widths):
        for _ in range(form.blocks):
            made.append(Stage(*_layers(width, wide, form, level, style.heads)))
            width = wide
            skips.append(width)
        if level < len(form.widths) - 1:
            made.append(Stage(_shrinking(width, style)))
            skips.append(width)
    return nn.ModuleList(made), skips


def _layers(c_in: int, c_out: int, form: Form, level: int, heads: int) -> list[nn.Module]:
    made: list[nn.Module] = [ResBlock(c_in, c_out, form.style)]
    if 1 << level in form.attending:
        made.append(AttentionBlock(c_out, form.style, heads))
    return made


def _shrinking(width: int, style: Style) -> nn.Module:
    return ResBlock(width, width, style, "down") if style.updown else Downsample(width)


def _growing(width: int, style: Style) -> nn.Module:
    return ResBlock(width, width, style, "up") if style.updown else Upsample(width)


def middle(width: int, style: Style) -> Stage:
    return Stage(
        ResBlock(width, width, style),
        AttentionBlock(width, style, style.heads),
        ResBlock(width, width, style),
    )


class UNetModel(nn.Module):
    """eps(x, t, y), of a class y where it was trained with some.

    classes  how many, None without
    """

    def __init__(self, form: Form, classes: int | None) -> None:
        super().__init__()
        style, self.size = form.style, form.size
        self.time_embed = Embedding(form.size, style.embedded)
        self.label_emb = None
        if classes:  # without nn.Embedding's own start: drawing one on "meta" takes torch seconds
            table = torch.empty(classes, style.embedded)
            self.label_emb = nn.Embedding.from_pretrained(table, freeze=False)
        self.input_blocks, skips = encoder(form)
        width = skips[-1]
        self.middle_block = middle(width, style)
        made = []
        for level in reversed(range(len(form.widths))):
            wide = form.widths[level]
            for i in range(form.blocks + 1):
                layers = _layers(width + skips.pop(), wide, form, level, style.heads_up)
                width = wide
                if level and i == form.blocks:
                    layers.append(_growing(width, style))
                made.append(Stage(*layers))
        self.output_blocks = nn.ModuleList(made)
        self.out = nn.Sequential(
            norm(width), nn.SiLU(), nn.Conv2d(width, form.outputs, 3, padding=1)
        )  # fmt: skip

    def waves(self, t: Tensor) -> Tensor:
        """What `time_embed` reads, [N, size]."""
        return torch.cat(sinusoids(t, self.size), dim=1)

    def embedded(self, t: Tensor, y: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The embedding of times and classes."""
        embedding = self.time_embed(self.waves(t).to(dtype))
        if self.label_emb is None:
            if y is not None:
                raise ValueError(NO_CLASSES)
            return embedding
        if y is None:
            raise ValueError(
                "this network was trained with a class for each image and without none: give condition="
            )
        return embedding + self.label_emb(y)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.out(self.features(x, self.embedded(t, y, x.dtype)))

    def features(self, x: Tensor, embedding: Tensor) -> Tensor:
        """The last feature map."""
        skips = []
        for block in self.input_blocks:
            x = block(x, embedding)
            skips.append(x)
        x = self.middle_block(x, embedding)
        for block in self.output_blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), embedding)
        return x


class SuperResModel(UNetModel):
    """eps(x, t, y, low_res), of a small image beside the noisy one; the form's channels are those of both."""

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor | None = None, low_res: Tensor | None = None
    ) -> Tensor:
        if low_res is None:
            raise ValueError(
                "this network enlarges images: give condition={'low_res': small images}"
            )
        grown = F.interpolate(low_res, x.shape[2:], mode="bilinear")
        return super().forward(torch.cat([x, grown], dim=1), t, y)


class EncoderUNetModel(nn.Module):
    """Logits [n, outputs] of a noisy image, for `with_classifier`.

    side  of the image
    pool  "adaptive", the mean over all positions; "attention"; "spatial" and "spatial_v2", means of all
          blocks
    """

    def __init__(self, form: Form, side: int, pool: str) -> None:
        super().__init__()
        self.size, self.pool = form.size, pool
        self.time_embed = Embedding(form.size, form.style.embedded)
        self.input_blocks, widths = encoder(form)
        self.middle_block = middle(widths[-1], form.style)
        self.out = _pool(form, pool, widths, side >> (len(form.widths) - 1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = self.time_embed(torch.cat(sinusoids(t, self.size), dim=1).to(x.dtype))
        means = []
        for block in (*self.input_blocks, self.middle_block):
            x = block(x, embedding)
            means.append(x.mean(dim=(2, 3)))
        return self.out(torch.cat(means, dim=1) if self.pool.startswith("spatial") else x)


def _pool(form: Form, pool: str, widths: Sequence[int], side: int) -> nn.Sequential:
    """What makes logits; names count the layers of guided-diffusion's."""
    last = widths[-1]
    if pool == "adaptive":
        return nn.Sequential(
            norm(last), nn.SiLU(), nn.AdaptiveAvgPool2d((1, 1)), nn.Conv2d(last, form.outputs, 1),
            nn.Flatten(),
        )  # fmt: skip
    if pool == "attention":
        assert form.style.head_channels is not None, "a classifier's heads have 64 channels"
        attention = AttentionPool(side * side, last, form.style.head_channels, form.outputs)
        return nn.Sequential(norm(last), nn.SiLU(), attention)
    total = sum(widths) + last
    if pool == "spatial":
        return nn.Sequential(nn.Linear(total, POOLED), nn.ReLU(), nn.Linear(POOLED, form.outputs))
    return nn.Sequential(
        nn.Linear(total, POOLED), norm(POOLED), nn.SiLU(), nn.Linear(POOLED, form.outputs)
    )  # fmt: skip
