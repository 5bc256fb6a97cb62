"""The class-conditional U-Net of the shipped networks: 32x32 images worked on at 16, 8 and 4."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


def fold(x: Tensor) -> Tensor:
    """Space to depth: [B, C, 2H, 2W] to [B, 4C, H, W]."""
    return rearrange(x, "b c (h i) (w j) -> b (c i j) h w", i=2, j=2)


def unfold(x: Tensor) -> Tensor:
    """Depth to space, the inverse of `fold`: [B, 4C, H, W] to [B, C, 2H, 2W]."""
    return rearrange(x, "b (c i j) h w -> b c (h i) (w j)", i=2, j=2)


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 8, channels)


def wave(t: Tensor, size: int, fastest: float, dtype: torch.dtype) -> Tensor:
    """Sinusoids of t [B], [B, size]: size / 2 angular rates from `fastest` to 10^-4 of it."""
    # Angles reach 1000 rad: float32 whatever the network's dtype, hence no buffer to convert.
    top = math.log10(fastest)
    rate = torch.logspace(top, top - 4.0, size // 2, dtype=torch.float32, device=t.device)
    angle = t.float()[:, None] * rate
    return torch.cat((angle.sin(), angle.cos()), dim=1).to(dtype)


def zero(layer: nn.Module) -> nn.Module:
    """Start `layer` at zero, so that the branch that ends in it starts as the identity."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer


class Block(nn.Module):
    """Residual pair of 3x3 convolutions, the second one's input scaled and shifted by `emb`."""

    def __init__(self, c_in: int, c_out: int, c_emb: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.norm2, self.conv2 = norm(c_out), zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.film = nn.Linear(c_emb, 2 * c_out)
        self.skip = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(F.silu(h))


class Attention(nn.Module):
    """Residual self-attention over all positions, heads of 32 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        qkv = rearrange(self.qkv(self.norm(x)), "b (n k c) h w -> n b k (h w) c", n=3, c=32)
        h = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return x + self.out(rearrange(h, "b k (h w) c -> b (k c) h w", h=x.shape[2]))


class UNet(nn.Module):
    """Noise prediction eps(x, t, y) for x = alpha(t) x0 + sigma(t) eps, or another prediction of that form.

    The time enters as sinusoids of t, at angular rates `fastest` to 10^-4 of it (Ho et al. 2020 have 1000 t
    at rates 1 to 10^-4), the class as a learned vector. eps = g(t) x + h(x, t, y): the learned gain g
    carries the noise that x shows as it is, so that h is left with what has to be estimated, as in
    v-prediction.

    Args:
        channels: widths at 1/2, 1/4, 1/8 of the image's side, multiples of 8, the last of 32.
        emb: width of the time and class vector, even, at least 4.
        classes: number of classes; the label `classes` itself means "no class".
        inputs: channels of x.
        outputs: channels of the prediction, `inputs` if None; the gain carries the last ones of x, which
            of CLD's [x, v] are v.
        fastest: angular rate of the fastest sinusoid of t, positive.

    Raises:
        ValueError: a width does not fit.
    """

    def __init__(
        self,
        channels: Sequence[int] = (32, 64, 128),
        emb: int = 128,
        classes: int = 10,
        inputs: int = 1,
        outputs: int | None = None,
        fastest: float = 1000.0,
    ) -> None:
        super().__init__()
        c1, c2, c3 = channels
        if any(c < 8 or c % 8 for c in channels) or c3 % 32 or emb < 4 or emb % 2:
            raise ValueError(
                f"channels {tuple(channels)} and emb {emb} do not fit; give positive multiples of 8, "
                "the last of 32, as channels and an even emb of 4 or more"
            )
        self.emb, self.fastest = emb, float(fastest)
        self.outputs = inputs if outputs is None else outputs
        if not 1 <= self.outputs <= inputs or not self.fastest > 0.0:
            raise ValueError(
                f"inputs {inputs}, outputs {outputs} and fastest {fastest} do not fit; give 1 to inputs "
                "channels as outputs and a positive rate"
            )
        self.time = nn.Sequential(nn.Linear(emb, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label = nn.Embedding(classes + 1, emb)
        self.gain = zero(nn.Linear(emb, 1))
        self.stem = nn.Conv2d(4 * inputs, c1, 3, padding=1)
        self.down1 = Block(c1, c1, emb)
        self.to2 = nn.Conv2d(4 * c1, c2, 1)
        self.down2 = Block(c2, c2, emb)
        self.to3 = nn.Conv2d(4 * c2, c3, 1)
        self.mid1, self.attention, self.mid2 = Block(c3, c3, emb), Attention(c3), Block(c3, c3, emb)
        self.from3 = nn.Conv2d(c3, 4 * c2, 1)
        self.up2 = Block(c2, c2, emb)
        self.from2 = nn.Conv2d(c2, 4 * c1, 1)
        self.up1 = Block(c1, c1, emb)
        self.norm, self.head = norm(c1), zero(nn.Conv2d(c1, 4 * self.outputs, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The noise in x.

        Args:
            x: [B, inputs, H, W] float, H and W multiples of 8.
            t: [B] float, time in [0, 1] or another label of that size.
            y: [B] int64, class in 0..classes; `classes` asks for the unconditional noise.

        Returns:
            eps, [B, outputs, H, W] of x's dtype.
        """
        return self.predict(x, F.silu(self.time(self.wave(t, x.dtype)) + self.label(y)))

    def wave(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """Sinusoids of t, [B, emb]."""
        return wave(t, self.emb, self.fastest, dtype)

    def predict(self, x: Tensor, emb: Tensor) -> Tensor:
        """The prediction for x, told the vector emb [B, emb] of time, class and whatever else."""
        h1 = self.down1(self.stem(fold(x)), emb)
        h2 = self.down2(self.to2(fold(h1)), emb)
        h = self.mid1(self.to3(fold(h2)), emb)
        h = self.mid2(self.attention(h), emb)
        h = self.up2(unfold(self.from3(h)) + h2, emb)
        h = self.up1(unfold(self.from2(h)) + h1, emb)
        h = self.head(F.silu(self.norm(h)))
        carried = x if x.shape[1] == self.outputs else x[:, -self.outputs :]
        return self.gain(emb)[:, :, None, None] * carried + unfold(h)
