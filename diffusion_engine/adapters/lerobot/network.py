"""A U-Net over time, told the step and the observation by FiLM (Chi et al. 2023, Perez et al. 2018)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


class ConditionalUnet1d(nn.Module):
    """eps or x0 of actions (x, timestep, condition); names are those of lerobot's diffusion policy.

    Called with x [n, horizon, actions], timestep [n] and condition [n, condition].

    actions    numbers of one action
    condition  numbers that are told of the observations
    widths     down_dims: channels of every resolution, each half as long as the one before
    kernel     kernel_size
    groups     of norms within the blocks
    embedding  diffusion_step_embed_dim
    scales     FiLM scales channels too, beside shifting them
    """

    def __init__(
        self, actions: int, condition: int, widths: tuple[int, ...], kernel: int, groups: int, embedding: int,
        scales: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.condition = condition
        self.diffusion_step_encoder = nn.Sequential(
            Embedding(embedding),
            nn.Linear(embedding, 4 * embedding),
            nn.Mish(),
            nn.Linear(4 * embedding, embedding),
        )
        told = embedding + condition

        def block(read: int, width: int) -> ResidualBlock:
            return ResidualBlock(read, width, told, kernel, groups, scales)

        self.down_modules = nn.ModuleList()
        for i, (read, width) in enumerate(zip((actions, *widths), widths, strict=False)):
            last = i == len(widths) - 1
            step = nn.Identity() if last else nn.Conv1d(width, width, 3, 2, 1)
            self.down_modules.append(nn.ModuleList([block(read, width), block(width, width), step]))
        self.mid_modules = nn.ModuleList([block(widths[-1], widths[-1]) for _ in range(2)])
        self.up_modules = nn.ModuleList()
        for width, read in reversed(list(pairwise(widths))):
            longer = nn.ConvTranspose1d(width, width, 4, 2, 1)
            self.up_modules.append(
                nn.ModuleList([block(2 * read, width), block(width, width), longer])
            )
        self.final_conv = nn.Sequential(
            ConvBlock(widths[0], widths[0], kernel, 8), nn.Conv1d(widths[0], actions, 1)
        )

    def forward(self, x: Tensor, timestep: Tensor, condition: Tensor | None = None) -> Tensor:
        if condition is None or condition.shape[1:] != (self.condition,):
            given = None if condition is None else list(condition.shape)
            raise ValueError(
                f"condition={given}: the policy is told its observations, [n, {self.condition}], as "
                "Policy.condition makes them"
            )
        told = torch.cat([self._step(timestep, x.dtype), condition.to(x.dtype)], -1)
        h = x.mT
        passed = []
        for level in self.down_modules:
            first, second, down = level.children()
            h = second(first(h, told), told)
            passed.append(h)
            h = down(h)
        for block in self.mid_modules:
            h = block(h, told)
        for level in self.up_modules:
            first, second, up = level.children()
            h = up(second(first(torch.cat([h, passed.pop()], 1), told), told))
        made: Tensor = self.final_conv(h)
        return made.mT

    def _step(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """The step's embedding, whose angles a half-precision type would round."""
        wave, *layers = self.diffusion_step_encoder
        h: Tensor = wave(timestep.to(torch.promote_types(dtype, torch.float32))).to(dtype)
        for layer in layers:
            h = layer(h)
        return h


class Embedding(nn.Module):
    """sin and cos of the step over rates from 1 to 1e-4."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, step: Tensor) -> Tensor:
        half = self.size // 2
        rates = torch.exp(
            torch.arange(half, dtype=step.dtype, device=step.device)
            * (-math.log(10000) / (half - 1))
        )
        angles = step[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], -1)


class ConvBlock(nn.Module):
    def __init__(self, read: int, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(read, width, kernel, padding=kernel // 2),
            nn.GroupNorm(groups, width),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.block(x)
        return made


class ResidualBlock(nn.Module):
    def __init__(
        self, read: int, width: int, told: int, kernel: int, groups: int, scales: bool
    ) -> None:
        super().__init__()
        self.scales = scales
        self.conv1 = ConvBlock(read, width, kernel, groups)
        self.conv2 = ConvBlock(width, width, kernel, groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(told, width * (1 + scales)))
        self.residual_conv = nn.Conv1d(read, width, 1) if read != width else nn.Identity()

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        h, film = self.conv1(x), self.cond_encoder(told)[..., None]
        if self.scales:
            scale, shift = film.chunk(2, 1)
            h = scale * h + shift
        else:
            h = h + film
        made: Tensor = self.conv2(h) + self.residual_conv(x)
        return made
