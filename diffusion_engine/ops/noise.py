"""The op `noise`: standard normals of (seed of the sample, key, m, element) into a tensor.

The key is the launch's. With row counters it is that plus the own key of each sample's row, read where
the rows lie: the network's latent input is filled so before a call, also within a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import layout as at
from . import philox
from .op import Op, Operator
from .registry import resolve
from .written import check_written


@dataclass(frozen=True, eq=False)
class NoiseArgs:
    """The buffers, checked once; the key and m are given at each launch.

    out    [B, C, *pixel] float32, written by logical element (c, pixel)
    seed   [B] int64
    row    [B] int32, each sample's row; -1 leaves the sample alone
    index  [R, INDEX] int32, the rows (ops/layout.py); comes with row

    Raises ValueError or TypeError on another shape or dtype.
    """

    out: Tensor
    seed: Tensor
    row: Tensor | None = None
    index: Tensor | None = None

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
        check_written("noise", out=self.out)
        if (self.row is None) != (self.index is None):
            raise ValueError("row and index come together; one of them is missing")
        if self.row is not None and self.index is not None:
            self._check_rows(self.row, self.index)

    def _check_rows(self, row: Tensor, index: Tensor) -> None:
        if row.dtype != torch.int32 or index.dtype != torch.int32:
            raise TypeError(f"row and index are int32, got {row.dtype}, {index.dtype}")
        if row.shape != self.seed.shape or index.shape[1:] != (at.INDEX,):
            raise ValueError(
                f"noise needs one row a sample and index [rows, {at.INDEX}], "
                f"got {list(row.shape)} and {list(index.shape)}"
            )
        if {row.device, index.device} != {self.out.device}:
            raise ValueError(
                f"out is on {self.out.device}, row on {row.device}, index on {index.device}; "
                "move them to one"
            )


def bind(args: NoiseArgs) -> Callable[..., None]:
    """The definition in plain torch; the launch takes the key and m."""

    def launch(key: int = 0, m: int = 0) -> None:
        keys = torch.full_like(args.seed, key)
        if args.row is not None and args.index is not None:
            keys += args.index[args.row.clamp(min=0).long(), at.KEY]
        count = args.out.shape[1:].numel()
        z = philox.normals(args.seed, keys, m, count).reshape(args.out.shape)
        if args.row is not None:
            z = torch.where((args.row >= 0).view(-1, *[1] * (z.ndim - 1)), z, args.out)
        args.out.copy_(z)

    return launch


def plain(device: torch.device) -> NoiseArgs:
    """One sample."""
    seed = torch.zeros(1, dtype=torch.int64, device=device)
    return NoiseArgs(torch.zeros(1, 1, 2, 2, device=device), seed)


SCHEMA = (
    "noise(Tensor(a!) out, Tensor seed, int key, int m=0, *, Tensor? row=None, Tensor? index=None) "
    "-> ()"
)


def _run(out: Tensor, seed: Tensor, key: int, m: int = 0, **rows: Tensor | None) -> None:
    resolve("noise", "auto", NoiseArgs(out, seed, **rows))(key, m)


def _fake(out: Tensor, seed: Tensor, key: int, m: int = 0, **rows: Tensor | None) -> None:
    NoiseArgs(out, seed, **rows)


OP = Op(bind=bind, plain=plain, operators=(Operator(SCHEMA, _run, _fake),))
