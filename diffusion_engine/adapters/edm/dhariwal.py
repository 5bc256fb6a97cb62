"""ADM's network as EDM has it (Dhariwal & Nichol 2021; Karras et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.embedding import sinusoids
from .block import Block, Style, norm


class DhariwalUNet(nn.Module):
    """F(x, label, classes [n, label_dim]) of a U-Net with a block of the skips' channels at each place.

    The arguments have the names of EDM's: `channel_mult` gives the widths of the levels, `attn_resolutions`
    the sides of images at which blocks attend.
    """

    def __init__(
        self, img_resolution: int, in_channels: int, out_channels: int, label_dim: int,
        model_channels: int, channel_mult: Sequence[int], channel_mult_emb: int, num_blocks: int,
        attn_resolutions: Sequence[int],
    ) -> None:  # fmt: skip
        super().__init__()
        self.size = model_channels
        embedded = model_channels * channel_mult_emb
        style = Style(embedded)
        self.map_layer0 = nn.Linear(model_channels, embedded)
        self.map_layer1 = nn.Linear(embedded, embedded)
        self.map_label = nn.Linear(label_dim, embedded, bias=False) if label_dim else None
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        widths = [model_channels * mult for mult in channel_mult]
        sides = [img_resolution >> level for level in range(len(widths))]

        self.enc[f"{sides[0]}x{sides[0]}_conv"] = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        skips, width = [widths[0]], widths[0]
        for level, (side, wide) in enumerate(zip(sides, widths, strict=True)):
            if level:
                self.enc[f"{side}x{side}_down"] = Block(width, width, style, resize="down")
                skips.append(width)
            for i in range(num_blocks):
                block = Block(width, wide, style, attention=side in attn_resolutions)
                self.enc[f"{side}x{side}_block{i}"] = block
                width = wide
                skips.append(width)
        for level, (side, wide) in reversed(list(enumerate(zip(sides, widths, strict=True)))):
            if level == len(widths) - 1:
                self.dec[f"{side}x{side}_in0"] = Block(width, width, style, attention=True)
                self.dec[f"{side}x{side}_in1"] = Block(width, width, style)
            else:
                self.dec[f"{side}x{side}_up"] = Block(width, width, style, resize="up")
            for i in range(num_blocks + 1):
                block = Block(width + skips.pop(), wide, style, attention=side in attn_resolutions)
                self.dec[f"{side}x{side}_block{i}"] = block
                width = wide
        self.out_norm, self.out_act = norm(width, style.eps), nn.SiLU()
        self.out_conv = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        embedding = self.embedded(x, label, classes)
        skips = []
        for block in self.enc.values():
            x = block(x, embedding) if isinstance(block, Block) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            if "block" in name:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, embedding)
        return self.out_conv(self.out_act(self.out_norm(x)))

    def embedded(self, x: Tensor, label: Tensor, classes: Tensor | None) -> Tensor:
        """The embedding of time and class."""
        waves = torch.cat(sinusoids(label, self.size), dim=1).to(x.dtype)
        made = self.map_layer1(F.silu(self.map_layer0(waves)))
        if self.map_label is not None and classes is not None:
            made = made + self.map_label(classes)
        return F.silu(made)
