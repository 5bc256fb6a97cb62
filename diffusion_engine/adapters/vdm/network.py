"""VDM's score network: a U-Net of one resolution that predicts eps - z (Kingma et al. 2021, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

EXPONENTS = (6, 7)  # of the Fourier features


class ScoreUNet(nn.Module):
    """eps of (z, gamma, conditioning); names are those of google-research/vdm's tree.

    Called with z [n, C, H, W], gamma [n] and, where it is told something besides, numbers [n].

    channels   C of an image
    width      sm_n_embd, a multiple of 32
    layers     sm_n_layer
    attention  in every block, beside the one in the middle
    fourier    features sin and cos of 2 pi 2^k z, k = 6 and 7, beside z
    gammas     gamma_min and gamma_max, between which gamma is told as 0 to 1000
    """

    def __init__(
        self,
        channels: int,
        width: int,
        layers: int,
        attention: bool = False,
        fourier: bool = True,
        gammas: tuple[float, float] = (-13.3, 5.0),
    ) -> None:
        super().__init__()
        self.width, self.layers, self.attention, self.fourier = width, layers, attention, fourier
        self.gammas = gammas
        told = 4 * width
        self.dense0, self.dense1 = nn.Linear(width + 1, told), nn.Linear(told, told)
        read = channels * (1 + 2 * len(EXPONENTS) * fourier)
        self.conv_in = nn.Conv2d(read, width, 3, padding=1)
        self.down, self.up = nn.ModuleDict(), nn.ModuleDict()
        for side, blocks, given in ((self.down, layers, width), (self.up, layers + 1, 2 * width)):
            for i in range(blocks):
                side[f"block_{i}"] = ResnetBlock(given, width, told)
                if attention:
                    side[f"attn_{i}"] = AttnBlock(width)
        self.mid = nn.ModuleDict({
            "block_1": ResnetBlock(width, width, told),
            "attn_1": AttnBlock(width),
            "block_2": ResnetBlock(width, width, told),
        })  # fmt: skip
        self.GroupNorm_0 = norm(width)
        self.conv_out = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z: Tensor, gamma: Tensor, conditioning: Tensor | None = None) -> Tensor:
        told = self._told(gamma, conditioning)
        h = self.conv_in(torch.cat([z, features(z)], 1) if self.fourier else z)
        passed = [h]
        for i in range(self.layers):
            h = self._block(self.down, i, h, told)
            passed.append(h)
        h = self.mid["block_1"](h, told)
        h = self.mid["block_2"](self.mid["attn_1"](h), told)
        for i in range(self.layers + 1):
            h = self._block(self.up, i, torch.cat([h, passed.pop()], 1), told)
        return self.conv_out(silu(self.GroupNorm_0(h))) + z

    def _told(self, gamma: Tensor, conditioning: Tensor | None) -> Tensor:
        low, high = self.gammas
        t = 1000.0 * ((gamma - low) / (high - low))
        half = self.width // 2
        rates = torch.exp(
            torch.arange(half, dtype=t.dtype, device=t.device) * (-math.log(10000.0) / (half - 1))
        )
        angles = t[:, None] * rates
        number = torch.zeros_like(t) if conditioning is None else conditioning.to(t.dtype)
        made = torch.cat([angles.sin(), angles.cos(), number.reshape(-1, 1)], 1)
        return silu(self.dense1(silu(self.dense0(made))))

    def _block(self, side: nn.ModuleDict, i: int, h: Tensor, told: Tensor) -> Tensor:
        h = side[f"block_{i}"](h, told)
        return side[f"attn_{i}"](h) if self.attention else h


class ResnetBlock(nn.Module):
    def __init__(self, read: int, width: int, told: int) -> None:
        super().__init__()
        self.GroupNorm_0, self.GroupNorm_1 = norm(read), norm(width)
        self.conv1 = nn.Conv2d(read, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.cond_proj = nn.Linear(told, width, bias=False)
        if read != width:
            self.nin_shortcut = nn.Conv2d(read, width, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h = self.conv1(silu(self.GroupNorm_0(x))) + self.cond_proj(told)[:, :, None, None]
        h = self.conv2(silu(self.GroupNorm_1(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    """Attention of one head over all pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.GroupNorm_0 = norm(width)
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.proj_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.GroupNorm_0(x).flatten(2).mT
        made = scaled_dot_product_attention(self.q(h), self.k(h), self.v(h))
        return x + self.proj_out(made).mT.reshape(x.shape)


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


def features(z: Tensor, exponents: Sequence[int] = EXPONENTS) -> Tensor:
    """sin and cos of 2 pi 2^k z: of each channel every k, first all sines."""
    waves = torch.tensor(
        [2.0**k * 2.0 * math.pi for k in exponents], dtype=z.dtype, device=z.device
    )
    angles = (z[:, :, None] * waves[:, None, None]).flatten(1, 2)
    return torch.cat([angles.sin(), angles.cos()], 1)
