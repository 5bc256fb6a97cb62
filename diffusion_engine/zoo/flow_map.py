"""The U-Net of networks that are told where a step starts and where it ends."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .unet import UNet, zero


class FlowMapUNet(UNet):
    """u(x, t, end, y), the average velocity between t and end: a UNet with an embedding of t - end beside
    that of t (MeanFlow, Geng et al. 2025, section 4.3), which starts at zero, so that u is first the UNet's.

    Args:
        channels, emb, classes, inputs, outputs, fastest: as of UNet.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.span = nn.Sequential(
            nn.Linear(self.emb, self.emb), nn.SiLU(), zero(nn.Linear(self.emb, self.emb))
        )

    def forward(self, x: Tensor, t: Tensor, end: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """The average velocity.

        Args:
            x: [B, inputs, H, W] float, H and W multiples of 8.
            t, end: [B] float, times in [0, 1], the noisier first.
            y: [B] int64, class in 0..classes; `classes` asks for the unconditional one.

        Returns:
            [B, outputs, H, W] of x's dtype.
        """
        told = self.time(self.wave(t, x.dtype)) + self.span(self.wave(t - end, x.dtype))
        return self.predict(x, F.silu(told + self.label(y)))
