"""The op `quantile` in Triton; ops/quantile.py defines it.

A program has a sample. Magnitudes as bits are in the order of the values: histograms of eight bits at a
time, the highest first, find those of the wanted rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..backends.norms import float_objection
from ..backends.quantile import line
from ..backends.views import axes, dense, layout_objection
from ..ops.op import Implementation
from ..ops.quantile import Launch, QuantileArgs
from .cover import channel_pixel
from .launch import on_device, out_of_place
from .norms import repeated

BLOCK = 4096  # elements of a program's turn
INFINITE = tl.constexpr(0x7F800000)  # the magnitude of infinity; NaN is above


@triton.jit
def _bits(ptr, first, size, pixels, channel, pixel, BLOCK: tl.constexpr):
    """Magnitudes as bits, in 64, and which there are."""
    at = first + tl.arange(0, BLOCK)
    there = at < size
    offset = (at // pixels).to(tl.int64) * channel + (at % pixels).to(tl.int64) * pixel
    x = tl.load(ptr + offset, mask=there, other=0.0)
    return x.to(tl.int32, bitcast=True).to(tl.int64) & 0x7FFFFFFF, there


@triton.jit
def _quantile(
    out_ptr, x_ptr, q_ptr, size, pixels, x_batch, x_channel, x_pixel, BLOCK: tl.constexpr
):
    b = tl.program_id(0).to(tl.int64)
    q = tl.load(q_ptr + b)
    found = tl.full([1], float("nan"), dtype=tl.float64)
    if (q >= 0.0) & (q <= 1.0):
        ptr = x_ptr + b * x_batch
        position = q * (size - 1).to(tl.float64)
        rank = position.to(tl.int32)  # cut, which is the floor
        w = position - rank.to(tl.float64)
        digits = tl.arange(0, 256)
        value, equal = tl.full([1], 0, dtype=tl.int64), tl.full([1], 0, dtype=tl.int32)
        for turn in tl.static_range(4):
            counts = tl.zeros([256], dtype=tl.int32)
            for first in range(0, size, BLOCK):
                bits, there = _bits(ptr, first, size, pixels, x_channel, x_pixel, BLOCK)
                alike = there & ((bits >> (32 - 8 * turn)) == value)
                digit = ((bits >> (24 - 8 * turn)) & 255).to(tl.int32)
                counts += tl.histogram(digit, 256, mask=alike)
            passed = tl.cumsum(counts, 0) <= rank
            chosen = tl.sum(passed.to(tl.int32), 0)
            rank -= tl.sum(tl.where(passed, counts, 0), 0)
            equal = tl.full([1], 0, dtype=tl.int32) + tl.sum(
                tl.where(digits == chosen, counts, 0), 0
            )
            value = value * 256 + chosen
        above = tl.full([1], 1 << 31, dtype=tl.int64)
        top = tl.full([1], 0, dtype=tl.int64)
        for first in range(0, size, BLOCK):
            bits, there = _bits(ptr, first, size, pixels, x_channel, x_pixel, BLOCK)
            above = tl.minimum(above, tl.min(tl.where(there & (bits > value), bits, 1 << 31), 0))
            top = tl.maximum(top, tl.max(bits, 0))
        last = (rank + 1 < equal) | (
            above == 1 << 31
        )  # the next value is the same, or there is none
        low = value.to(tl.int32).to(tl.float32, bitcast=True).to(tl.float64)
        high = tl.where(last, value, above).to(tl.int32).to(tl.float32, bitcast=True).to(tl.float64)
        between = low + w * (high - low)
        found = tl.where(w == 0.0, low, tl.where(low == high, low, between))
        found = tl.where(top > INFINITE, float("nan"), found)
    tl.store(out_ptr + b + tl.arange(0, 1), found.to(tl.float32))


def objection(args: QuantileArgs) -> str | None:
    small = {"out": args.out, "q": args.q}
    if args.x[0].numel() >= 1 << 31:
        return f"Triton counts in 32 bits; a sample has {args.x[0].numel()} elements"
    return (
        out_of_place(_quantile, args.x.device)
        or float_objection("x", args.x)
        or layout_objection({"x": args.x}, small)
    )


def prepare(args: QuantileArgs) -> tuple[Any, tuple[int], dict[str, Any]]:
    """The kernel, its grid and its arguments."""
    x = line(args.x)
    channel, pixel = channel_pixel(x)
    given = {
        "out_ptr": args.out, "x_ptr": args.x, "q_ptr": args.q, "size": x[0].numel(),
        "pixels": axes(x, dense(x))[1], "x_batch": x.stride(0), "x_channel": channel, "x_pixel": pixel,
        "BLOCK": BLOCK, "num_warps": 8, "enable_fp_fusion": False,
    }  # fmt: skip
    return _quantile, (len(x),), given


def bind(args: QuantileArgs) -> Launch:
    """A launch that takes the tensors."""
    device = on_device(args.x.device)
    run = repeated(*prepare(args), ("out_ptr", "x_ptr", "q_ptr"))

    def launch(tensors: Sequence[Tensor]) -> None:
        with device():
            run(*tensors)

    return launch


TRITON = Implementation(bind=bind, objection=objection)
