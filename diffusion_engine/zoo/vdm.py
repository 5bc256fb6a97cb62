"""The network of variational diffusion models: a U-Net that is told gamma, and its noise schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapters.vdm.network import EXPONENTS, features
from ..adapters.vdm.schedule import MonotoneGamma
from .unet import UNet, zero

GAMMAS = (-13.3, 5.0)  # of the fixed schedule, and where a learned one begins


class LearnedGamma(nn.Module):
    """gamma(t) = low + (high - low) share(t), the share rising from 0 to 1 over t in [0, 1], all learned
    (Kingma et al. 2021, appendix H).

    hidden  units of the monotone network, which begins near to a straight line
    """

    def __init__(self, hidden: int = 1024) -> None:
        super().__init__()
        self.ends = nn.Parameter(torch.tensor(GAMMAS))
        self.shape = MonotoneGamma(0.0, 1.0, hidden)

    def share(self, t: Tensor) -> Tensor:
        """Of gamma's way, in [0, 1] at times t [n] or [n, 1]."""
        first, last = self.shape(torch.tensor([0.0, 1.0], dtype=t.dtype, device=t.device))
        return (self.shape(t) - first) / (last - first)

    def forward(self, t: Tensor) -> Tensor:
        """gamma at times t [n] or [n, 1], in t's shape."""
        low, high = self.ends
        return low + (high - low) * self.share(t)


class VDMUNet(UNet):
    """eps(z, gamma, y) with waves of z beside z (Kingma et al. 2021, appendix B).

    The waves sin and cos of 2 pi 2^k z tell apart the grey levels, 1/128 apart, where there is little noise.
    They enter the first layer, and like z itself they are carried to the output by learned gains.

    Args:
        exponents: the k of the waves; 6 and 7 are the paper's.
        learned: whether a schedule `gamma` is learned with it and lies in its file.
        options: of UNet.
    """

    def __init__(
        self, exponents: Sequence[int] = EXPONENTS, learned: bool = True, **options: Any
    ) -> None:
        waves = 2 * len(exponents)
        super().__init__(inputs=1 + waves, outputs=1, **options)
        self.exponents = tuple(exponents)
        self.carried = zero(nn.Linear(self.emb, waves))
        if learned:
            self.gamma = LearnedGamma()

    def forward(self, z: Tensor, gamma: Tensor, y: Tensor) -> Tensor:
        """The noise in z.

        Args:
            z: [B, 1, H, W] float, H and W multiples of 8.
            gamma: [B] float, log(sigma^2 / alpha^2), told as 0 to 1 between those of the fixed schedule.
            y: [B] int64, class in 0..classes; `classes` asks for the unconditional noise.

        Returns:
            eps, [B, 1, H, W] of z's dtype.
        """
        t = (gamma - GAMMAS[0]) / (GAMMAS[1] - GAMMAS[0])
        emb = F.silu(self.time(self.wave(t, z.dtype)) + self.label(y))
        waves = features(z, self.exponents)
        carried = (self.carried(emb)[:, :, None, None] * waves).sum(dim=1, keepdim=True)
        return carried + self.predict(torch.cat((waves, z), dim=1), emb)
