"""Times the op `norms` of two images against torch's own sums in float64, and a copy of one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from diffusion_engine.ops.norms import SUMS, NormsArgs

from .. import reductions, results, shapes
from ..shapes import Shape


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for shape, layout in shapes.STATES:
        if shapes.wanted(only, "norms", shape, layout):
            yield partial(compare, shape, layout, device, repeats)


def compare(shape: Shape, layout: str, device: torch.device, repeats: int) -> list[results.Row]:
    sets = reductions.images(shape, layout, device, tensors=2)
    out = torch.empty(shape[0], SUMS, dtype=torch.float64, device=device)
    ours = reductions.ours("norms", [NormsArgs(out, *images) for images in sets])
    case: results.Row = {"op": "norms", "case": "norms", "layout": layout}
    return reductions.rows(case, sets, repeats, ours, [partial(by_torch, *pair) for pair in sets])


def by_torch(x: Tensor, y: Tensor) -> None:
    """The same sums, in torch's order."""
    x, y = x.flatten(1).double(), y.flatten(1).double()
    torch.stack([x.sum(1), y.sum(1), (x * x).sum(1), (y * y).sum(1), (x * y).sum(1)], dim=1)
