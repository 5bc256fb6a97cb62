"""A classifier of noised images, for classifier guidance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .unet import Block, fold, norm, wave


class NoisedClassifier(nn.Module):
    """Logits of p(y | x, t) for x = alpha(t) x0 + sigma(t) eps: the descending half of the U-Net (Dhariwal &
    Nichol 2021, section 4).

    Args:
        channels: widths at 1/2, 1/4, 1/8 of the image's side, multiples of 8.
        emb: width of the time's vector, even, at least 4.
        classes: 2 or more.
        side: of the images, a multiple of 8.
        fastest: angular rate of the fastest sinusoid of t, positive. A slow one makes a gradient that is
            smooth in t.

    Raises:
        ValueError: a width does not fit.
    """

    def __init__(
        self,
        channels: Sequence[int] = (16, 32, 64),
        emb: int = 64,
        classes: int = 10,
        side: int = 32,
        fastest: float = 30.0,
    ) -> None:
        super().__init__()
        c1, c2, c3 = channels
        if any(c < 8 or c % 8 for c in (*channels, side)) or emb < 4 or emb % 2 or classes < 2:
            raise ValueError(
                f"channels {tuple(channels)}, side {side}, emb {emb} and classes {classes} do not fit; give "
                "positive multiples of 8 as channels and side, an even emb of 4 or more and 2 classes or more"
            )
        if not fastest > 0.0:
            raise ValueError(f"fastest={fastest}: give a positive rate")
        self.emb, self.fastest = emb, float(fastest)
        self.time = nn.Sequential(nn.Linear(emb, emb), nn.SiLU())
        self.stem = nn.Conv2d(4, c1, 3, padding=1)
        self.down1 = Block(c1, c1, emb)
        self.to2 = nn.Conv2d(4 * c1, c2, 1)
        self.down2 = Block(c2, c2, emb)
        self.to3 = nn.Conv2d(4 * c2, c3, 1)
        self.down3 = Block(c3, c3, emb)
        self.norm = norm(c3)
        self.head = nn.Linear(c3 * (side // 8) ** 2, classes)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits [B, classes] of x [B, 1, side, side] at times t [B]."""
        emb = self.time(wave(t, self.emb, self.fastest, x.dtype))
        h = self.down1(self.stem(fold(x)), emb)
        h = self.down2(self.to2(fold(h)), emb)
        h = self.down3(self.to3(fold(h)), emb)
        return self.head(torch.flatten(F.silu(self.norm(h)), 1))
