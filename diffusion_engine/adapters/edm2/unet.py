"""EDM2's network (Karras et al. 2024, figure 21)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..layers.embedding import one_hot
from .block import Block, MPFourier, Style, conv, joined, linear, mixed, silu


class UNet(nn.Module):
    """F(x, label, classes [n, label_dim]). The arguments have the names of EDM2's, those of its blocks in
    `style`; `noise` is the size of the embedding of the label."""

    def __init__(
        self, img_resolution: int, img_channels: int, label_dim: int, widths: Sequence[int], noise: int,
        num_blocks: int, attn_resolutions: Sequence[int], label_balance: float, concat_balance: float,
        style: Style,
    ) -> None:  # fmt: skip
        super().__init__()
        self.label_balance, self.concat_balance = label_balance, concat_balance
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier, self.emb_noise = MPFourier(noise), linear(noise, style.embedded)
        self.emb_label = linear(label_dim, style.embedded) if label_dim else None
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        sides = [img_resolution >> level for level in range(len(widths))]

        self.enc[f"{sides[0]}x{sides[0]}_conv"] = conv(img_channels + 1, widths[0], 3)
        skips, width = [widths[0]], widths[0]
        for level, (side, wide) in enumerate(zip(sides, widths, strict=True)):
            if level:
                self.enc[f"{side}x{side}_down"] = Block(width, width, style, False, resize="down")
                skips.append(width)
            for i in range(num_blocks):
                block = Block(width, wide, style, False, attention=side in attn_resolutions)
                self.enc[f"{side}x{side}_block{i}"] = block
                width = wide
                skips.append(width)
        for level, (side, wide) in reversed(list(enumerate(zip(sides, widths, strict=True)))):
            if level == len(widths) - 1:
                self.dec[f"{side}x{side}_in0"] = Block(width, width, style, True, attention=True)
                self.dec[f"{side}x{side}_in1"] = Block(width, width, style, True)
            else:
                self.dec[f"{side}x{side}_up"] = Block(width, width, style, True, resize="up")
            for i in range(num_blocks + 1):
                c_in, attends = width + skips.pop(), side in attn_resolutions
                self.dec[f"{side}x{side}_block{i}"] = Block(c_in, wide, style, True, attends)
                width = wide
        self.out_conv = conv(width, img_channels, 3)

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        embedding = self.emb_noise(self.emb_fourier(label).to(x.dtype))
        if self.emb_label is not None:
            known = math.sqrt(self.emb_label.in_features)
            told = (
                torch.zeros_like(embedding) if classes is None else self.emb_label(classes * known)
            )
            embedding = mixed(embedding, told, self.label_balance)
        embedding = silu(embedding)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        skips = []
        for block in self.enc.values():
            x = block(x, embedding) if isinstance(block, Block) else block(x)
            skips.append(x)
        for name, block in self.dec.items():
            if "block" in name:
                x = joined(x, skips.pop(), self.concat_balance)
            x = block(x, embedding)
        return self.out_conv(x) * self.out_gain


class EDM2(nn.Module):
    """`unet`, which is told classes by their indices, and the logarithm of its error's variance."""

    def __init__(self, unet: UNet, label_dim: int, logvar_channels: int) -> None:
        super().__init__()
        self.unet, self.label_dim = unet, label_dim
        self.logvar_fourier, self.logvar_linear = (
            MPFourier(logvar_channels),
            linear(logvar_channels, 1),
        )

    def forward(self, x: Tensor, label: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.unet(x, label, one_hot(classes, self.label_dim, x.dtype))

    def logvar(self, label: Tensor) -> Tensor:
        """u(sigma) of the labels log(sigma) / 4, [n]: the loss is D's error over e^u, plus u (eq. 21)."""
        waves = self.logvar_fourier(label).to(self.logvar_linear.weight.dtype)
        return self.logvar_linear(waves)[:, 0]
