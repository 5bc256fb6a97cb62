"""What networks make of their labels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def sinusoids(label: Tensor, size: int, endpoint: bool = False) -> tuple[Tensor, Tensor]:
    """Cosines and sines of `label` times size / 2 rates falling from 1 to 1e-4, float32 (Ho et al. 2020).

    endpoint  whether 1e-4 itself is the last rate, or the next one
    """
    half = size // 2
    last = -4.0 if endpoint else -4.0 * (half - 1) / half
    rate = torch.logspace(0.0, last, half, dtype=torch.float64, device=label.device)
    angle = label.float()[:, None] * rate.float()
    return angle.cos(), angle.sin()


NO_CLASSES = "this network was trained without classes: leave condition= out"


def one_hot(classes: Tensor | None, count: int, dtype: torch.dtype) -> Tensor | None:
    """[n] to [n, count], all zeros for the class `count`; None stays.

    Raises ValueError where classes are given to a network that has none.
    """
    if classes is None:
        return None
    if not count:
        raise ValueError(NO_CLASSES)
    known = torch.arange(count, device=classes.device)
    return (classes[:, None] == known).to(dtype)


class Exact(nn.Module):
    """Its own buffers keep their dtype where the module is cast: angles of hundreds of radians would be
    noise in bfloat16."""

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            moved = self._buffers[name]
            if buffer is not None and moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self


class Fourier(Exact):
    """Cosines and sines of 2 pi freqs label; a checkpoint's freqs are normals times 16 (Song et al. 2021)."""

    freqs: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(size // 2))

    def forward(self, label: Tensor) -> tuple[Tensor, Tensor]:
        angle = label.float()[:, None] * (2.0 * math.pi * self.freqs)
        return angle.cos(), angle.sin()
