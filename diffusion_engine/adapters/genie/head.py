"""GENIE's head under the names of its checkpoints, for `genie.attach`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ncsnpp.blocks import Block, Style


@dataclass(frozen=True)
class HeadSizes:
    """Of a head.

    channels   of an image
    features   of the U-Net's last feature map, a quarter of its time embedding
    width      channels inside
    blocks     residual blocks
    normalise  puts a group norm on the feature map first
    activate   SiLU before the first block
    images     it sees of them: the input and eps, and of an upsampler the small image
    """

    channels: int
    features: int
    width: int
    blocks: int
    normalise: bool
    activate: bool
    images: int = 2


class Layers(nn.Module):
    """Convolution, residual blocks, norm, SiLU and convolution."""

    def __init__(self, sizes: HeadSizes, style: Style) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.width
        layers: list[nn.Module] = [style.norm(sizes.features)] if sizes.normalise else []
        layers.append(
            nn.Conv2d(sizes.features + sizes.images * sizes.channels, width, 3, padding=1)
        )
        layers += [Block(style, width, width) for _ in range(sizes.blocks)]
        layers += [style.norm(width), nn.Conv2d(width, 3 * sizes.channels, 3, padding=1)]
        self.all_modules = nn.ModuleList(layers)

    def forward(self, x: Tensor, eps: Tensor, features: Tensor, embedding: Tensor) -> Tensor:
        layers = iter(self.all_modules)
        if self.sizes.normalise:
            features = next(layers)(features)
        h = next(layers)(torch.cat((x, eps, features), dim=1))
        if self.sizes.activate:
            h = F.silu(h)
        for _ in range(self.sizes.blocks):
            h = next(layers)(h, embedding)
        h = F.silu(next(layers)(h))
        return next(layers)(h)


class Head(nn.Module):
    """[N, 3 C, H, W]: k1, k2 and k3 of an image and of what a U-Net made of it (Dockhorn et al. 2022, section
    3.1), called as head(x, eps, features, embedding)."""

    def __init__(self, sizes: HeadSizes, style: Style) -> None:
        super().__init__()
        self.sizes = sizes
        self.all_modules = nn.ModuleList([Layers(sizes, style)])

    def forward(self, x: Tensor, eps: Tensor, features: Tensor, embedding: Tensor) -> Tensor:
        return self.all_modules[0](x, eps, features, embedding)
