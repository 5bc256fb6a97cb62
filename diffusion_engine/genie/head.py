"""The small network that predicts d eps / dg from what a U-Net has computed already."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def norm(channels: int) -> nn.GroupNorm:
    """Group norm over at most 32 groups of 4 or more channels."""
    return nn.GroupNorm(math.gcd(min(channels // 4, 32) or 1, channels), channels, eps=1e-6)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Block(nn.Module):
    """BigGAN's residual block: the time embedding is added between its two convolutions."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(channels), nn.Conv2d(channels, channels, 3, padding=1)
        self.time = nn.Linear(embedding, channels)
        self.norm2, self.conv2 = norm(channels), zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time(F.silu(embedding))[:, :, None, None]
        return (x + self.conv2(F.silu(self.norm2(h)))) / math.sqrt(2.0)


class Head(nn.Module):
    """k1, k2, k3 with d eps / dg = -k1 / g + g / (1 + g^2) k2 + k3 / (g (1 + g^2)) (Dockhorn et al. 2022,
    section 3.1).

    channels   of an image
    features   channels of the U-Net's last feature map
    embedding  width of the U-Net's time embedding
    width      channels inside; None is `features`
    normalise  puts a group norm on the feature map first
    fold       the feature map has 1 / fold of the image's side: image and eps are folded to it

    Its last convolution starts at 0, so that an untrained head makes 'genie' the same as 'ddim'.
    """

    def __init__(
        self,
        channels: int,
        features: int,
        embedding: int,
        width: int | None = None,
        normalise: bool = False,
        fold: int = 1,
    ) -> None:
        super().__init__()
        width, folded = width or features, channels * fold * fold
        self.fold = fold
        self.norm_in = norm(features) if normalise else nn.Identity()
        self.conv_in = nn.Conv2d(features + 2 * folded, width, 3, padding=1)
        self.block = Block(width, embedding)
        self.norm, self.conv_out = norm(width), zero(nn.Conv2d(width, 3 * folded, 3, padding=1))

    def forward(self, x: Tensor, eps: Tensor, features: Tensor, embedding: Tensor) -> Tensor:
        """[N, 3 C, H, W]: k1, k2, k3.

        x, eps     [N, C, H, W], the network's input and the noise it found in it
        features   [N, features, H / fold, W / fold]
        embedding  [N, embedding]
        """
        images = F.pixel_unshuffle(torch.cat((x, eps), dim=1), self.fold)
        h = self.conv_in(torch.cat((images, self.norm_in(features)), dim=1))
        h = self.conv_out(F.silu(self.norm(self.block(h, embedding))))
        return F.pixel_shuffle(h, self.fold)
