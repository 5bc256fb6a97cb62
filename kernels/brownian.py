"""The op `brownian` in Triton; ops/brownian.py defines it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from ..ops import layout
from ..ops.brownian import BrownianArgs
from ..ops.op import Implementation
from .cover import Cover, channel_pixel, cover
from .launch import bound, objection_to
from .philox import normals

HEADER = tl.constexpr(layout.HEADER)
TERMS = tl.constexpr(layout.TERMS)


@triton.jit
def _brownian(out_ptr, seed_ptr, row_ptr, terms_ptr, weight_ptr,
              draws, draw_stride, batch_stride, channel_stride, pixel_stride,
              channels, pixels, elements, programs,
              BLOCK: tl.constexpr, CHANNELS: tl.constexpr, ALIGNED: tl.constexpr):  # fmt: skip
    program = tl.program_id(0) % programs
    sample = tl.program_id(0) // programs
    m = (sample % draws).to(tl.int64)
    b = (sample // draws).to(tl.int64)
    row = tl.load(row_ptr + b)
    if row >= 0:
        at = row.to(tl.int64) * draws + m
        terms_ptr += at * (HEADER + TERMS)
        weight_ptr += at * TERMS
        count = tl.load(terms_ptr)
        if count > 0:
            c, px, valid = cover(program, channels, pixels, elements, BLOCK, CHANNELS)
            seed = tl.load(seed_ptr + b)
            word = tl.load(terms_ptr + 1).to(tl.uint32)
            total = tl.zeros([BLOCK], dtype=tl.float32)
            for i in range(count):
                key = tl.load(terms_ptr + HEADER + i).to(tl.uint32)
                z = normals(
                    seed, key, word, c, px, program, channels, pixels, BLOCK, CHANNELS, ALIGNED
                )
                total += tl.load(weight_ptr + i) * z
            to = out_ptr + m * draw_stride + b * batch_stride
            tl.store(to + c * channel_stride + px * pixel_stride, total, mask=valid)


def objection(args: BrownianArgs) -> str | None:
    small = {name: getattr(args, name) for name in ("seed", "row", "terms", "weight")}
    return objection_to(_brownian, {"out": args.out[0]}, small)


def bind(args: BrownianArgs) -> Callable[[], None]:
    return bound(*prepare(args), args.out.device)


def prepare(args: BrownianArgs) -> tuple[Any, tuple[int], dict[str, Any]]:
    """The kernel, its grid and its arguments."""
    image = args.out[0]
    chosen = Cover.choose(image.shape[1:], [channel_pixel(image)], drawn=True)
    channel_stride, pixel_stride = chosen.steps(channel_pixel(image))
    draws, batch = args.out.shape[:2]
    given = {
        "out_ptr": args.out,
        "seed_ptr": args.seed,
        "row_ptr": args.row,
        "terms_ptr": args.terms,
        "weight_ptr": args.weight,
        "draws": draws,
        "draw_stride": args.out.stride(0),
        "batch_stride": args.out.stride(1),
        "channel_stride": channel_stride,
        "pixel_stride": pixel_stride,
        **chosen.sizes,
        **chosen.constants,
    }
    return _brownian, (draws * batch * chosen.programs,), given


TRITON = Implementation(bind=bind, objection=objection)
