"""What networks are told beside time and condition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ScaleEmbedding:
    """Sines, then cosines of factor (w - 1) at `dim` / 2 frequencies from 1 to 1e-4: w is the guidance scale.

    As LCM's U-Net takes it (Luo et al. 2023): ScoreNetwork(..., scale_input=ScaleEmbedding()).

    dim   an even number, 4 or more
    name  the keyword the network is given it by
    """

    dim: int = 256
    factor: float = 1000.0
    name: str = "timestep_cond"

    def __post_init__(self) -> None:
        if self.dim < 4 or self.dim % 2:
            raise ValueError(
                f"dim={self.dim}: an embedding has an even number of at least 4 values"
            )

    def __call__(self, scales: Tensor) -> Mapping[str, Tensor]:
        """[n] to [n, dim], float64."""
        half = self.dim // 2
        rate = math.log(10000.0) / (half - 1)
        frequency = torch.exp(-rate * torch.arange(half, dtype=torch.float64, device=scales.device))
        angle = self.factor * (scales.double() - 1.0)[:, None] * frequency
        return {self.name: torch.cat([angle.sin(), angle.cos()], dim=1)}
