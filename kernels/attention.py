"""The op `attention` in Triton; ops/attention.py defines it.

A program has some queries of one head and walks over blocks of keys with a running maximum and sum.
The head dim is split into two powers of two, 40 = 32 + 16 with 8 of them masked, so that odd ones
are not padded to the next: 1.2 times the work instead of 1.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..backends.attention import layout_objection
from ..ops.attention import AttentionArgs, Launch
from ..ops.op import Implementation
from .launch import interpreted, on_device, out_of_place, start

LOG2E = 1.4426950408889634
LEAST = 16  # of a product's dimensions on the tensor cores


@triton.jit
def _rows(ptr, base, rows, count, stride, first, DIM: tl.constexpr, D: tl.constexpr, UNIT: tl.constexpr,
          MASKED: tl.constexpr, WIDEN: tl.constexpr):  # fmt: skip
    """Columns first ... first + DIM of some rows; 0 beyond D and, where MASKED, beyond the last row."""
    d = first + tl.arange(0, DIM)
    at = ptr + base + rows.to(tl.int64)[:, None] * stride * UNIT + d[None, :]
    if MASKED:
        x = tl.load(at, mask=(rows < count)[:, None] & (d < D)[None, :], other=0.0)
    elif first + DIM > D:
        x = tl.load(at, mask=(d < D)[None, :], other=0.0)
    else:
        x = tl.load(at)
    return x.to(tl.float32) if WIDEN else x


@triton.jit
def _product(a, b, PRECISION: tl.constexpr):
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def _block(acc, rest, top, total, q, q_rest, q_ptr, q_base, own, queries, q_token, k_ptr, v_ptr,
           k_base, v_base, rows, keys, k_token, v_token, factor,
           D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, SLICE: tl.constexpr, UNIT: tl.constexpr,
           M: tl.constexpr, N: tl.constexpr, MASKED: tl.constexpr,
           WIDEN: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """Takes in one block of keys. factor has log2 e, so that 2^x is all that is needed."""
    if SLICE > 0:
        # A wide head's queries would fill the registers: slices of them are read again, from the cache.
        scores = tl.zeros([M, N], tl.float32)
        for first in tl.static_range(0, D0, SLICE):
            q_slice = _rows(
                q_ptr, q_base, own, queries, q_token, first, SLICE, D, UNIT, True, WIDEN
            )
            k_slice = _rows(
                k_ptr, k_base, rows, keys, k_token, first, SLICE, D, UNIT, MASKED, WIDEN
            )
            scores += _product(q_slice, tl.trans(k_slice), PRECISION)
    else:
        k = _rows(k_ptr, k_base, rows, keys, k_token, 0, D0, D, UNIT, MASKED, WIDEN)
        scores = _product(q, tl.trans(k), PRECISION)
    if D1 > 0:
        k_rest = _rows(k_ptr, k_base, rows, keys, k_token, D0, D1, D, UNIT, MASKED, WIDEN)
        scores += _product(q_rest, tl.trans(k_rest), PRECISION)
    scores *= factor
    if MASKED:
        scores = tl.where((rows < keys)[None, :], scores, float("-inf"))
    higher = tl.maximum(top, tl.max(scores, axis=1))
    p = tl.exp2(scores - higher[:, None])
    shrink = tl.exp2(top - higher)
    total = total * shrink + tl.sum(p, axis=1)
    v = _rows(v_ptr, v_base, rows, keys, v_token, 0, D0, D, UNIT, MASKED, WIDEN)
    p = p.to(v.dtype)
    acc = acc * shrink[:, None] + _product(p, v, PRECISION)
    if D1 > 0:
        v_rest = _rows(v_ptr, v_base, rows, keys, v_token, D0, D1, D, UNIT, MASKED, WIDEN)
        rest = rest * shrink[:, None] + _product(p, v_rest, PRECISION)
    return acc, rest, higher, total


@triton.jit
def _attention(q_ptr, k_ptr, v_ptr, out_ptr, heads, queries, keys, blocks, factor,
               q_batch, q_head, q_token, k_batch, k_head, k_token, v_batch, v_head, v_token,
               out_batch, out_head, out_token,
               D: tl.constexpr, D0: tl.constexpr, D1: tl.constexpr, SLICE: tl.constexpr, UNIT: tl.constexpr,
               M: tl.constexpr, N: tl.constexpr,
               WIDEN: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    across = tl.program_id(0) // blocks
    b, head = (across // heads).to(tl.int64), (across % heads).to(tl.int64)
    own = (tl.program_id(0) % blocks) * M + tl.arange(0, M)
    # Triton itself sees only that a stride is a multiple of 16; as so many units the others, 40 say, let
    # rows be loaded by 16 bytes too.
    q_base, out_base = (
        (b * q_batch + head * q_head) * UNIT,
        (b * out_batch + head * out_head) * UNIT,
    )
    k_base, v_base = (b * k_batch + head * k_head) * UNIT, (b * v_batch + head * v_head) * UNIT
    q = _rows(q_ptr, q_base, own, queries, q_token, 0, D0, D, UNIT, True, WIDEN)
    q_rest = q
    acc, rest = tl.zeros([M, D0], tl.float32), tl.zeros([M, 1], tl.float32)
    if D1 > 0:
        q_rest = _rows(q_ptr, q_base, own, queries, q_token, D0, D1, D, UNIT, True, WIDEN)
        rest = tl.zeros([M, D1], tl.float32)
    top, total = tl.full([M], float("-inf"), tl.float32), tl.zeros([M], tl.float32)
    whole = keys // N * N
    for first in range(0, whole, N):
        acc, rest, top, total = _block(
            acc, rest, top, total, q, q_rest, q_ptr, q_base, own, queries, q_token, k_ptr, v_ptr,
            k_base, v_base, first + tl.arange(0, N), keys, k_token, v_token, factor,
            D, D0, D1, SLICE, UNIT, M, N, False, WIDEN, PRECISION)  # fmt: skip
    if whole < keys:
        acc, rest, top, total = _block(
            acc, rest, top, total, q, q_rest, q_ptr, q_base, own, queries, q_token, k_ptr, v_ptr,
            k_base, v_base, whole + tl.arange(0, N), keys, k_token, v_token, factor,
            D, D0, D1, SLICE, UNIT, M, N, True, WIDEN, PRECISION)  # fmt: skip
    inside, d = (own < queries)[:, None], tl.arange(0, D0)
    at = out_ptr + out_base + own.to(tl.int64)[:, None] * out_token * UNIT
    out = acc / total[:, None]
    tl.store(at + d[None, :], out.to(out_ptr.dtype.element_ty), mask=inside & (d < D)[None, :])
    if D1 > 0:
        d = D0 + tl.arange(0, D1)
        out = rest / total[:, None]
        tl.store(at + d[None, :], out.to(out_ptr.dtype.element_ty), mask=inside & (d < D)[None, :])


def split(dim: int) -> tuple[int, int]:
    """The head dim as one or two powers of two of at least LEAST, the second 0 where one does."""
    first = max(LEAST, triton.next_power_of_2(dim + 1) // 2)
    second = max(LEAST, triton.next_power_of_2(dim - first)) if dim > first else 0
    return (2 * first, 0) if second == first else (first, second)


def sizes(dim: int, dtype: torch.dtype, queries: int) -> dict[str, int]:
    """Queries and keys of a block, columns of a slice, warps and stages: what sm_80 and sm_90 hold
    without spilling. Accumulators are float32, so wide heads take fewer queries."""
    first, second = split(dim)
    width = first + second
    if dtype == torch.float32:
        rows, part = (64, 0) if width <= 64 else (32 if width <= 128 else 16, 16 if second else 32)
        return {"M": rows, "N": 16, "SLICE": part, "num_warps": 4, "num_stages": 1}
    if width > 128:
        return {"M": 64, "N": 32, "SLICE": 64, "num_warps": 8, "num_stages": 2}
    # A head's few queries are spread over more programs.
    rows, keys = 128 if queries > 1024 else 64, 32 if second else 64
    return {"M": rows, "N": keys, "SLICE": 0, "num_warps": rows // 16, "num_stages": 3}


def objection(args: AttentionArgs) -> str | None:
    if args.q.dtype == torch.float64:
        return "Triton works in float32; q is float64"
    return out_of_place(_attention, args.q.device) or layout_objection(args)


def bind(args: AttentionArgs) -> Launch:
    """A launch that takes the tensors."""
    device, (grid, fixed) = on_device(args.q.device), prepare(args)
    run: Callable[..., None] | None = None

    def launch(tensors: Sequence[Tensor]) -> None:
        nonlocal run
        with device():
            if run is None:
                run = start(_attention, grid, dict(zip(TENSORS, tensors, strict=True)), fixed)
            else:
                run(*tensors)

    return launch


TENSORS = ("q_ptr", "k_ptr", "v_ptr", "out_ptr")


def prepare(args: AttentionArgs) -> tuple[tuple[int], dict[str, Any]]:
    """The grid and what does not change from launch to launch."""
    batch, heads, queries, dim = args.q.shape
    first, second = split(dim)
    chosen = sizes(dim, args.q.dtype, queries)
    blocks = triton.cdiv(queries, chosen["M"])
    steps = {
        f"{name}_{axis}": getattr(args, name).stride(i)
        for name in ("q", "k", "v", "out")
        for i, axis in enumerate(("batch", "head", "token"))
    }
    # Elements, of 16 bytes at most; multiples of 16 need none, for which ptxas takes no further registers.
    seen = all(step % 16 == 0 for step in steps.values())
    unit = 1 if seen else math.gcd(16 // args.q.itemsize, *steps.values())
    fixed = {
        "heads": heads,
        "queries": queries,
        "keys": args.k.shape[2],
        "blocks": blocks,
        "factor": args.factor * LOG2E,
        **{name: step // unit for name, step in steps.items()},
        "D": dim,
        "D0": first,
        "D1": second,
        "UNIT": unit,
        # The interpreter's bfloat16 is not arithmetic; on a GPU products take it as it is.
        "WIDEN": interpreted(_attention),
        # Three products of the tensor cores' 19-bit numbers come to float32's accuracy.
        "PRECISION": "ieee" if interpreted(_attention) else "tf32x3",
        "enable_fp_fusion": True,
        **chosen,
    }
    return (batch * heads * blocks,), fixed


TRITON = Implementation(bind=bind, objection=objection)
