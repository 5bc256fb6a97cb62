"""The generator of a denoising diffusion GAN: the U-Net with a latent z, and an x0 between -1 and 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .unet import UNet, zero


class LatentUNet(UNet):
    """x0 = tanh(2 (x_f - t v(x_f, t, z, y))): a draw from p(x0 | x), which z decides (Xiao et al. 2022).

    v is the velocity of straight paths, x_f = x / (alpha + sigma) a state of theirs at the time
    t = sigma / (alpha + sigma): a network of flow matching is a beginning, whose x0 is the mean of the
    draws. z is normalised, embedded by two layers, and added to the vector of time and class.

    Args:
        channels, emb, classes, inputs, fastest: as of UNet.
        latent: entries of z, 1 or more.

    Raises:
        ValueError: a width does not fit.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 64),
        emb: int = 128,
        classes: int = 10,
        inputs: int = 1,
        fastest: float = 100.0,
        latent: int = 32,
    ) -> None:
        super().__init__(channels, emb, classes, inputs, fastest=fastest)
        if latent < 1:
            raise ValueError(f"latent={latent}: a generator's z has 1 or more entries")
        self.latent = nn.Sequential(nn.Linear(latent, emb), nn.SiLU(), zero(nn.Linear(emb, emb)))

    def forward(self, x: Tensor, lam: Tensor, z: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        """A draw of x0.

        Args:
            x: [B, inputs, H, W] float, alpha x0 + sigma eps with alpha^2 + sigma^2 = 1.
            lam: [B] float, log(alpha / sigma).
            z: [B, latent] standard normals.
            y: [B] int64, class in 0..classes-1.

        Returns:
            x0, [B, inputs, H, W] of x's dtype.
        """
        t = torch.sigmoid(-lam.float())
        z = z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)
        told = self.time(self.wave(t, x.dtype)) + self.label(y) + self.latent(z)
        t = t.to(x.dtype).view(-1, 1, 1, 1)
        x = (t * t + (1.0 - t) * (1.0 - t)).sqrt() * x
        return torch.tanh(2.0 * (x - t * self.predict(x, F.silu(told))))
