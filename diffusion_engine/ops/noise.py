"""The op `noise`: standard normals of (seed of the sample, key, m, element) into a tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import noise as philox


@dataclass(frozen=True, eq=False)
class NoiseArgs:
    """out [B, C, *pixel] float32, written by logical element (c, pixel); seed [B] int64.

    Raises ValueError or TypeError on another shape or dtype.
    """

    out: Tensor
    seed: Tensor

    def __post_init__(self) -> None:
        if self.out.dtype != torch.float32 or self.seed.dtype != torch.int64:
            raise TypeError(
                f"noise writes float32 from int64 seeds, got {self.out.dtype}, {self.seed.dtype}"
            )
        if self.out.ndim < 2 or self.seed.shape != self.out.shape[:1]:
            raise ValueError(
                f"noise needs out [batch, channels, *pixel] and one seed a sample, "
                f"got {list(self.out.shape)} and {list(self.seed.shape)}"
            )
        if self.out.device != self.seed.device:
            raise ValueError(f"out is on {self.out.device}, seed on {self.seed.device}; move one")


def bind_reference(args: NoiseArgs) -> Callable[[int, int], None]:
    """The definition in plain torch; the launch takes the key and m."""

    def launch(key: int, m: int = 0) -> None:
        keys = torch.full_like(args.seed, key)
        count = args.out.shape[1:].numel()
        args.out.copy_(philox.normals(args.seed, keys, m, count).reshape(args.out.shape))

    return launch
