"""The op `norms` in Triton; ops/norms.py defines it.

A program sums a segment, and where a sample has several another kernel adds them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..backends.norms import float_objection
from ..backends.views import axes, dense, layout_objection
from ..ops import norms as op
from ..ops.norms import SEGMENT, SUMS, Launch, NormsArgs
from ..ops.op import Implementation
from .cover import channel_pixel
from .launch import on_device, out_of_place, start

LANES = tl.constexpr(op.LANES)
ROWS = tl.constexpr(op.ROWS)
BLOCKS = tl.constexpr(op.BLOCKS)


@triton.jit
def _load(ptr, at, size, pixels, channel, pixel, FLAT: tl.constexpr):
    """Elements in 64 bits, 0 where a sample has none."""
    offset = at
    if not FLAT:
        offset = (at // pixels) * channel + (at % pixels) * pixel
    return tl.load(ptr + offset, mask=at < size, other=0.0).to(tl.float64)


@triton.jit
def _tree(total):
    """[1], of BLOCKS x LANES: halving trees over the lanes, then over the blocks. Two have one sum."""
    total = tl.sum(tl.reshape(total, [16, 2, 8]), axis=1)
    total = tl.sum(tl.reshape(total, [16, 2, 4]), axis=1)
    total = tl.sum(tl.reshape(total, [16, 2, 2]), axis=1)
    total = tl.sum(tl.reshape(total, [16, 2, 1]), axis=1)
    total = tl.sum(tl.reshape(total, [2, 8]), axis=0)
    total = tl.sum(tl.reshape(total, [2, 4]), axis=0)
    total = tl.sum(tl.reshape(total, [2, 2]), axis=0)
    return tl.sum(tl.reshape(total, [2, 1]), axis=0)


@triton.jit
def _norms(out_ptr, x_ptr, y_ptr, segments, size, pixels,
           x_batch, x_channel, x_pixel, y_batch, y_channel, y_pixel, FLAT: tl.constexpr):  # fmt: skip
    """The five sums of a segment of a sample."""
    segment = (tl.program_id(0) % segments).to(tl.int64)
    b = (tl.program_id(0) // segments).to(tl.int64)
    place = tl.arange(0, BLOCKS * LANES)
    first = segment * (BLOCKS * ROWS * LANES) + (place // LANES) * (ROWS * LANES) + place % LANES
    zero = tl.zeros([BLOCKS * LANES], dtype=tl.float64)
    sum_x, sum_y, sum_xx, sum_yy, sum_xy = zero, zero, zero, zero, zero
    for row in range(ROWS):
        at = first + row * LANES
        x = _load(x_ptr + b * x_batch, at, size, pixels, x_channel, x_pixel, FLAT)
        sum_x += x
        sum_xx += x * x
        if y_ptr is not None:
            y = _load(y_ptr + b * y_batch, at, size, pixels, y_channel, y_pixel, FLAT)
            sum_y += y
            sum_yy += y * y
            sum_xy += x * y
    to = out_ptr + tl.program_id(0).to(tl.int64) * 5 + tl.arange(0, 1)
    tl.store(to, _tree(sum_x))
    tl.store(to + 1, _tree(sum_y))
    tl.store(to + 2, _tree(sum_xx))
    tl.store(to + 3, _tree(sum_yy))
    tl.store(to + 4, _tree(sum_xy))


@triton.jit
def _merge_norms(out_ptr, parts_ptr, segments):
    """The sums of a sample's segments, in order."""
    b, s = tl.program_id(0).to(tl.int64), tl.arange(0, 8)
    total = tl.zeros([8], dtype=tl.float64)
    for segment in range(segments):
        total += tl.load(parts_ptr + (b * segments + segment) * 5 + s, mask=s < 5, other=0.0)
    tl.store(out_ptr + b * 5 + s, total, mask=s < 5)


def objection(args: NormsArgs) -> str | None:
    images = {"x": args.x} if args.y is None else {"x": args.x, "y": args.y}
    return (
        out_of_place(_norms, args.x.device)
        or float_objection("x", args.x)
        or layout_objection(images, {"out": args.out})
    )


def prepare(args: NormsArgs) -> tuple[Any, tuple[int], dict[str, Any]]:
    """The kernel of the segments, its grid and its arguments."""
    flat = dense(args.x) and (args.y is None or dense(args.y))
    steps = [
        (t.stride(0), *channel_pixel(t)) if t is not None else (0, 0, 0) for t in (args.x, args.y)
    ]
    names = [f"{name}_{axis}" for name in "xy" for axis in ("batch", "channel", "pixel")]
    size, segments = args.x[0].numel(), segments_of(args)
    given = {
        "out_ptr": args.out, "x_ptr": args.x, "y_ptr": args.y, "segments": segments, "size": size,
        "pixels": axes(args.x, flat)[1], **dict(zip(names, [n for step in steps for n in step], strict=True)),
        "FLAT": flat, "num_warps": 8, "enable_fp_fusion": False,
    }  # fmt: skip
    return _norms, (len(args.x) * segments,), given


def merging(args: NormsArgs) -> tuple[Any, tuple[int], dict[str, Any]]:
    """The same of what adds the segments."""
    parts = args.out.new_empty(len(args.x) * segments_of(args) * SUMS)
    given = {"out_ptr": args.out, "parts_ptr": parts, "segments": segments_of(args)}
    return _merge_norms, (len(args.x),), given | {"num_warps": 1, "enable_fp_fusion": False}


def segments_of(args: NormsArgs) -> int:
    return triton.cdiv(args.x[0].numel(), SEGMENT)


def bind(args: NormsArgs) -> Launch:
    """A launch that takes the tensors."""
    device, several = on_device(args.x.device), segments_of(args) > 1
    run = repeated(*prepare(args), ("out_ptr", "x_ptr", "y_ptr"))
    merge = repeated(*merging(args), ("out_ptr", "parts_ptr"))
    parts = len(args.x) * segments_of(args) * SUMS

    def launch(tensors: Sequence[Tensor | None]) -> None:
        out, x, y = tensors
        with device():
            if not several:
                return run(out, x, y)
            scratch = torch.empty(parts, dtype=torch.float64, device=x.device)  # type: ignore[union-attr]
            run(scratch, x, y)
            merge(out, scratch)

    return launch


def repeated(
    kernel: Any, grid: tuple[int], given: dict[str, Any], changing: tuple[str, ...]
) -> Callable[..., None]:
    """The launch of a kernel with other values of `changing`, its first parameters; the first compiles it."""
    fixed = {name: value for name, value in given.items() if name not in changing}
    run: Callable[..., None] | None = None

    def launch(*values: Any) -> None:
        nonlocal run
        if run is None:
            run = start(kernel, grid, dict(zip(changing, values, strict=True)), fixed)
        else:
            run(*values)

    return launch


TRITON = Implementation(bind=bind, objection=objection)
