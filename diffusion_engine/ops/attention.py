"""The op `attention`: softmax(q k^T scale) v (Vaswani et al. 2017, equation 1). This file defines it.

For every sample b, head h and query i, with the sums and the softmax in float32:

    s[j]   = scale sum_d q[i, d] k[j, d]
    out[i] = sum_j exp(s[j] - max s) v[j] / sum_j exp(s[j] - max s)

Kernels walk over blocks of keys with a running maximum and sum (Milakov and Gimelshein 2018; Dao et
al. 2022), so that no queries x keys matrix is in memory. The order of the sums does not depend on
the batch: a sample gives the same bits in any. Of torch's own kernels, the first choice on a GPU
(backends/sdpa.py), that is not promised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from . import launches
from .op import Op, Operator
from .written import check_written

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
DIMS = (8, 256)

# Writes out, or returns the result in its place: new and lying as [B, N, H, D].
Launch = Callable[[Sequence[Tensor]], Tensor | None]


@dataclass(frozen=True, eq=False)
class AttentionArgs:
    """The tensors of an attention, checked.

    q      [B, H, N, D], D from 8 to 256; float32, bfloat16 or float16 (float64 on the reference only)
    k, v   [B, H, M, D], of the dtype of q
    out    the shape and dtype of q; written
    scale  of the scores; None is 1 / sqrt(D)

    Views of any strides, with those of D equal to 1: heads may lie before or after the tokens, and
    q, k and v may be parts of one packed tensor.

    Raises ValueError on a wrong shape and TypeError on a wrong dtype.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    out: Tensor
    scale: float | None = None

    def __post_init__(self) -> None:
        check(self.q, self.k, self.v)
        if self.out.shape != self.q.shape:
            raise ValueError(
                f"attention writes out {list(self.q.shape)}, got {list(self.out.shape)}"
            )
        if self.out.dtype != self.q.dtype or self.out.device != self.q.device:
            raise TypeError(
                f"attention of q {self.q.dtype} on {self.q.device} "
                f"cannot write {self.out.dtype} on {self.out.device}"
            )
        check_written("attention", out=self.out)

    @property
    def factor(self) -> float:
        """The scale as a number."""
        return 1.0 / math.sqrt(self.q.shape[3]) if self.scale is None else self.scale

    def tensors(self) -> tuple[Tensor, ...]:
        """What a launch takes."""
        return self.q, self.k, self.v, self.out


def check(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Raises ValueError or TypeError where q, k and v do not go together."""
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape:
        raise ValueError(
            "attention needs q [batch, heads, queries, dim] and k, v [batch, heads, keys, dim], "
            f"got {list(q.shape)}, {list(k.shape)}, {list(v.shape)}"
        )
    if q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"q {list(q.shape)} and k {list(k.shape)} differ in batch, heads or head dim; repeat or "
            "project k and v so that they agree"
        )
    if not DIMS[0] <= q.shape[3] <= DIMS[1]:
        raise ValueError(
            f"head dim {q.shape[3]} is not between {DIMS[0]} and {DIMS[1]}; use another number of heads"
        )
    if q.numel() == 0 or k.numel() == 0:
        raise ValueError(f"attention of no elements: q {list(q.shape)}, k {list(k.shape)}")
    if q.dtype not in (*DTYPES, torch.float64) or not q.dtype == k.dtype == v.dtype:
        raise TypeError(
            f"attention takes q, k and v all float32, bfloat16 or float16, "
            f"got {q.dtype}, {k.dtype}, {v.dtype}; cast them to one"
        )
    if not q.device == k.device == v.device:
        raise ValueError(f"q is on {q.device}, k on {k.device}, v on {v.device}; move them to one")


def bind(args: AttentionArgs) -> Launch:
    """The definition in plain torch, queries x keys matrix and all."""
    factor = args.factor

    def launch(tensors: Sequence[Tensor]) -> None:
        q, k, v, out = tensors
        kind = torch.promote_types(q.dtype, torch.float32)
        scores = q.to(kind) @ k.to(kind).mT * factor
        out.copy_(torch.softmax(scores, dim=-1) @ v.to(kind))

    return launch


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, *, backend: str = "auto"
) -> Tensor:
    """softmax(q k^T scale) v; shapes in AttentionArgs.

    The result [B, H, N, D] lies in memory as [B, N, H, D], which is what the layer after it reads.
    There is no derivative. Raises ValueError or TypeError on arguments that do not go together.
    """
    out = _empty(q)
    tensors = (q, k, v, out)
    make = partial(AttentionArgs, *tensors, scale)
    made = launches.call("attention", backend, tensors, (scale,), make)
    return out if made is None else made


def _empty(q: Tensor) -> Tensor:
    """A result, which lies in memory as [B, N, H, D]."""
    batch, heads, queries, dim = q.shape
    return q.new_empty(batch, queries, heads, dim).transpose(1, 2)


def plain(device: torch.device) -> AttentionArgs:
    """One head, in the dtype that networks have on such a device."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    q, k, v, out = torch.zeros(4, 1, 1, 8, 8, device=device, dtype=dtype)
    return AttentionArgs(q, k, v, out)


SCHEMA = "attention(Tensor q, Tensor k, Tensor v, float? scale=None) -> Tensor"


def _fake(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    check(q, k, v)
    return _empty(q)


OP = Op(bind=bind, plain=plain, operators=(Operator(SCHEMA, attention, _fake),))
