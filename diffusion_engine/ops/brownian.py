"""The op `brownian`: increments of every sample's Brownian path, for the row it is at, as the step reads
its normals. This file defines it.

For every sample b whose row r = row[b] is not negative, and every m with n = terms[r, m, 0] > 0:

    out[m, b] = sum_{i < n} weight[r, m, i] * normal of (seed[b], key = terms[r, m, 2 + i], terms[r, m, 1])

The sum runs in order from +0, one rounding for each product and each addition. plan/brownian.py
writes the tables: keys are nodes of the path's tree, and the squares of the weights sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import philox
from .layout import HEADER, TERMS
from .op import Op
from .registry import operator
from .written import check_written


@dataclass(frozen=True, eq=False)
class BrownianArgs:
    """The buffers, checked once; a launch takes no arguments.

    out     [M, B, C, *pixel] float32, written by logical element (c, pixel) where a row says so
    seed    [B] int64
    row     [B] int32, each sample's row, -1 leaves the sample alone
    terms   [R, M, HEADER + TERMS] int32: count, m, keys
    weight  [R, M, TERMS] float32

    Raises ValueError or TypeError on another shape or dtype.
    """

    out: Tensor
    seed: Tensor
    row: Tensor
    terms: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        dtypes = [t.dtype for t in vars(self).values()]
        if dtypes != [torch.float32, torch.int64, torch.int32, torch.int32, torch.float32]:
            raise TypeError(
                "brownian takes float32 out, int64 seed, int32 row, int32 terms and float32 weight, "
                f"got {', '.join(str(d).removeprefix('torch.') for d in dtypes)}"
            )
        if self.out.ndim < 3:
            raise ValueError(
                f"out is [draws, batch, channels, *pixel], got a shape of {list(self.out.shape)}"
            )
        draws, batch = self.out.shape[:2]
        wanted = {
            "seed": (batch,),
            "row": (batch,),
            "terms": (self.terms.shape[0], draws, HEADER + TERMS),
            "weight": (self.terms.shape[0], draws, TERMS),
        }
        for name, shape in wanted.items():
            if (given := tuple(getattr(self, name).shape)) != shape:
                raise ValueError(f"{name} has shape {list(given)}; {list(shape)} is needed")
        devices = {t.device for t in vars(self).values()}
        if len(devices) > 1:
            raise ValueError(
                f"all tensors of brownian lie on one device, got {sorted(map(str, devices))}"
            )
        check_written("brownian", out=self.out)


def bind(args: BrownianArgs) -> Callable[[], None]:
    """The definition in plain torch."""

    def launch() -> None:
        for m in range(args.out.shape[0]):
            _draw(args, m)

    return launch


def _draw(args: BrownianArgs, m: int) -> None:
    out = args.out[m]
    r = args.row.clamp(min=0).long()
    terms, weight = args.terms[r, m], args.weight[r, m]
    counts = torch.where(args.row >= 0, terms[:, 0], 0)
    total = torch.zeros_like(out).reshape(len(out), -1)
    for i in range(int(counts.max())):
        used = (i < counts).view(-1, 1)
        z = philox.normals(args.seed, terms[:, HEADER + i], terms[:, 1], total.shape[1])
        total = torch.where(used, total + weight[:, i : i + 1] * z, total)
    drawn = (counts > 0).view(-1, *[1] * (out.ndim - 1))
    out.copy_(torch.where(drawn, total.reshape(out.shape), out))


def plain(device: torch.device) -> BrownianArgs:
    """A sample that is at no row."""
    return BrownianArgs(
        torch.zeros(1, 1, 1, 2, 2, device=device),
        torch.zeros(1, dtype=torch.int64, device=device),
        torch.full((1,), -1, dtype=torch.int32, device=device),
        torch.zeros(1, 1, HEADER + TERMS, dtype=torch.int32, device=device),
        torch.zeros(1, 1, TERMS, device=device),
    )


SIGNATURE = "Tensor(a!) out, Tensor seed, Tensor row, Tensor terms, Tensor weight"

OP = Op(bind=bind, plain=plain, operators=(operator("brownian", BrownianArgs, SIGNATURE),))
