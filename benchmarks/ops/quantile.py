"""Times the op `quantile` at 0.995 against torch.quantile, and a copy of the image."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from diffusion_engine.ops.quantile import QuantileArgs

from .. import reductions, results, shapes
from ..shapes import Shape

Q = 0.995  # of dynamic thresholding


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for shape, layout in shapes.STATES:
        if shapes.wanted(only, "quantile", shape, layout):
            yield partial(compare, shape, layout, device, repeats)


def compare(shape: Shape, layout: str, device: torch.device, repeats: int) -> list[results.Row]:
    sets = reductions.images(shape, layout, device, tensors=1)
    q = torch.full(shape[:1], Q, dtype=torch.float64, device=device)
    bound = [QuantileArgs(x.new_empty(shape[0]), x, q) for (x,) in sets]
    case: results.Row = {"op": "quantile", "case": "quantile", "layout": layout}
    torchs = [partial(by_torch, x) for (x,) in sets]
    return reductions.rows(case, sets, repeats, reductions.ours("quantile", bound), torchs)


def by_torch(x: Tensor) -> None:
    torch.quantile(x.abs().flatten(1), Q, dim=1)
