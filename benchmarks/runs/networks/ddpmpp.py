"""W2, DDPM++ for 32x32 images in the configuration of Karras et al. 2022 (table 7, their re-implementation of
Song et al. 2021): 128 x [2, 2, 2] channels, 4 blocks a level, attention at 16 x 16 and in the middle,
positional embedding, box resampling. Dropout and augmentation, which sampling does not use, are left out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS, LEVELS, BLOCKS, EMB = 128, 3, 4, 512
HALF = math.sqrt(0.5)  # after every sum, so that the variance stays


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class Block(nn.Module):
    """Residual pair of 3x3 convolutions, the embedding added between; `resample` is "up", "down" or ""."""

    def __init__(self, c_in: int, c_out: int, resample: str = "", attention: bool = False) -> None:
        super().__init__()
        self.resample = resample
        self.norm1, self.conv1 = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.emb = nn.Linear(EMB, c_out)
        self.norm2, self.conv2 = norm(c_out), nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip = nn.Conv2d(c_in, c_out, 1) if resample or c_in != c_out else nn.Identity()
        self.attention = Attention(c_out) if attention else nn.Identity()

    def sized(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2.0, mode="nearest") if self.resample else x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(self.sized(F.silu(self.norm1(x))))
        h = self.conv2(F.silu(self.norm2(h + self.emb(emb)[:, :, None, None])))
        return self.attention((self.skip(self.sized(x)) + h) * HALF)


class Attention(nn.Module):
    """Self-attention over all positions, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1).chunk(3, dim=-1)
        h = F.scaled_dot_product_attention(q, k, v)
        return (x + self.out(h.squeeze(1).transpose(1, 2).reshape(x.shape))) * HALF


class DDPMpp(nn.Module):
    """eps(x, t) for x [B, 3, 32, 32] and the timestep t, 0 ... 999, one for all or [B]."""

    def __init__(self) -> None:
        super().__init__()
        c = 2 * CHANNELS
        self.time = nn.Sequential(
            nn.Linear(CHANNELS, EMB), nn.SiLU(), nn.Linear(EMB, EMB), nn.SiLU()
        )
        self.stem = nn.Conv2d(3, CHANNELS, 3, padding=1)
        skips, down = [CHANNELS], []
        for level in range(LEVELS):
            if level:
                down.append(Block(c, c, "down"))
                skips.append(c)
            for _ in range(BLOCKS):
                down.append(Block(skips[-1], c, attention=level == 1))
                skips.append(c)
        up = []
        for level in reversed(range(LEVELS)):
            if level < LEVELS - 1:
                up.append(Block(c, c, "up"))
            for i in range(BLOCKS + 1):
                last = level == 1 and i == BLOCKS
                up.append(Block(c + skips.pop(), c, attention=last))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.middle = nn.ModuleList([Block(c, c, attention=True), Block(c, c)])
        self.norm, self.head = norm(c), nn.Conv2d(c, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        # float32 whatever the network's dtype: a timestep in bfloat16 is another one
        rate = torch.exp(torch.linspace(0.0, -math.log(1e4), CHANNELS // 2, device=x.device))
        angle = t.expand(x.shape[0]).float()[:, None] * rate
        emb = self.time(torch.cat([angle.sin(), angle.cos()], dim=1).to(x.dtype))
        x = self.stem(x)
        skips = [x]
        for block in self.down:
            x = block(x, emb)
            skips.append(x)
        for block in self.middle:
            x = block(x, emb)
        for block in self.up:
            if not block.resample:
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, emb)
        return self.head(F.silu(self.norm(x)))
