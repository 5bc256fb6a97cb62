"""The U-Net of networks that are told their guidance scale."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .unet import UNet, zero


class GuidedUNet(UNet):
    """The guided prediction at scale s in one call: a UNet with an embedding of s beside that of t (Meng et
    al. 2023, section 3.1), which starts at zero, so that the prediction is first the UNet's.

    Args:
        channels, emb, classes, inputs, outputs, fastest: as of UNet.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.scale = nn.Sequential(
            nn.Linear(self.emb, self.emb), nn.SiLU(), zero(nn.Linear(self.emb, self.emb))
        )

    def forward(self, x: Tensor, t: Tensor, y: Tensor, guidance: Tensor) -> Tensor:  # type: ignore[override]
        """The guided prediction.

        Args:
            x: [B, inputs, H, W] float, H and W multiples of 8.
            t: [B] float, time in [0, 1].
            y: [B] int64, class in 0..classes.
            guidance: [B] float, the scale s; 1 is the class alone.

        Returns:
            [B, outputs, H, W] of x's dtype.
        """
        # A tenth of s is about as large as a time.
        told = self.time(self.wave(t, x.dtype)) + self.scale(self.wave(0.1 * guidance, x.dtype))
        return self.predict(x, F.silu(told + self.label(y)))
