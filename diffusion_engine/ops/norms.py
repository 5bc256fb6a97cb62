"""The op `norms`: sums of each sample in float64, in one fixed order. This file defines it.

For every sample b, over its elements i in logical order (c, pixel):

    out[b] = sum x[i], sum y[i], sum x[i]^2, sum y[i]^2, sum x[i] y[i]

Products of float32 are exact in float64, so that only the order of a sum decides its bits. A segment of
8192 elements is 16 blocks, a block 32 rows of 16 lanes: rows are added one after another from +0, lanes
and then blocks in halving trees (the first half plus the second), segments one after another. Elements
that a segment lacks are +0. The bits depend neither on the batch, the memory format nor the threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from . import launches
from .op import Op, Operator
from .written import check_written

# The numbers that csrc/common/reductions.h repeats.
LANES, ROWS, BLOCKS = 16, 32, 16
SEGMENT = BLOCKS * ROWS * LANES
SUMS = 5  # x, y, x^2, y^2, x y

Launch = Callable[[Sequence[Tensor | None]], None]


@dataclass(frozen=True, eq=False)
class NormsArgs:
    """The tensors, checked.

    out  [B, 5] float64, contiguous; written
    x    [B, C, *pixel] float32 (float64 on the reference only)
    y    like x; None is zeros

    Raises ValueError or TypeError on another shape or dtype.
    """

    out: Tensor
    x: Tensor
    y: Tensor | None = None

    def __post_init__(self) -> None:
        check(self.x, self.y)
        wanted = (self.x.shape[0], SUMS)
        if tuple(self.out.shape) != wanted or self.out.dtype != torch.float64:
            raise ValueError(
                f"norms writes out {list(wanted)} float64, got {list(self.out.shape)} {self.out.dtype}"
            )
        if self.out.device != self.x.device:
            raise ValueError(f"norms: x is on {self.x.device}, out on {self.out.device}; move one")
        check_written("norms", out=self.out)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """What a launch takes."""
        return self.out, self.x, self.y


def check(x: Tensor, y: Tensor | None = None) -> None:
    """Raises ValueError or TypeError where x and y do not go together."""
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(
            f"norms needs x [batch, channels, *pixel] with elements, got {list(x.shape)}"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"norms: x is {x.dtype}; cast it to float32")
    if y is not None and (y.shape, y.dtype, y.device) != (x.shape, x.dtype, x.device):
        raise ValueError(
            f"norms needs y like x, {list(x.shape)} {x.dtype} on {x.device}; got {list(y.shape)} "
            f"{y.dtype} on {y.device}"
        )


def bind(args: NormsArgs) -> Launch:
    """The definition in plain torch."""

    def launch(tensors: Sequence[Tensor | None]) -> None:
        out, given, other = tensors
        assert out is not None and given is not None
        x = _segments(given)
        out.zero_()
        out[:, 0], out[:, 2] = _sum(x), _sum(x * x)
        if other is not None:
            y = _segments(other)
            out[:, 1], out[:, 3], out[:, 4] = _sum(y), _sum(y * y), _sum(x * y)

    return launch


def _segments(x: Tensor) -> Tensor:
    """[B, segments, BLOCKS, ROWS, LANES] in float64."""
    flat = x.flatten(1).double()
    padded = F.pad(flat, (0, -flat.shape[1] % SEGMENT))
    return padded.view(len(x), -1, BLOCKS, ROWS, LANES)


def _sum(terms: Tensor) -> Tensor:
    """[B] of [B, segments, BLOCKS, ROWS, LANES]."""
    rows = torch.zeros_like(terms[..., 0, :])
    for row in range(ROWS):
        rows = rows + terms[..., row, :]
    segments = _tree(_tree(rows))
    total = torch.zeros_like(segments[:, 0])
    for segment in range(segments.shape[1]):
        total = total + segments[:, segment]
    return total


def _tree(terms: Tensor) -> Tensor:
    """The last axis, a power of two, by halves."""
    while (half := terms.shape[-1] // 2) > 0:
        terms = terms[..., :half] + terms[..., half:]
    return terms[..., 0]


def norms(x: Tensor, y: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """sum x, sum y, sum x^2, sum y^2 and sum x y of each sample, [B, 5] float64.

    x        [B, C, *pixel] float32 (float64 on the reference only)
    y        like x; None is zeros
    backend  "auto", or the name of one

    The bits are the same on every backend, alone and in a batch. There is no derivative.
    Raises ValueError or TypeError on arguments that do not go together.
    """
    check(x, y)
    out = torch.empty(len(x), SUMS, dtype=torch.float64, device=x.device)
    launches.call("norms", backend, (out, x, y), (), lambda: NormsArgs(out, x, y))
    return out


def plain(device: torch.device) -> NormsArgs:
    """One sample of one channel."""
    x = torch.zeros(1, 1, 2, 2, device=device)
    return NormsArgs(torch.zeros(1, SUMS, dtype=torch.float64, device=device), x, x.clone())


def _fake(x: Tensor, y: Tensor | None = None) -> Tensor:
    check(x, y)
    return x.new_empty(len(x), SUMS, dtype=torch.float64)


SCHEMA = "norms(Tensor x, Tensor? y=None) -> Tensor"

OP = Op(bind=bind, plain=plain, operators=(Operator(SCHEMA, norms, _fake),))
