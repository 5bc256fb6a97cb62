"""The op `noise` in Triton; ops/noise.py defines it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from ..ops import layout
from ..ops.noise import NoiseArgs
from ..ops.op import Implementation
from .cover import Cover, channel_pixel, cover
from .launch import objection_to, on_device, start
from .philox import normals

INDEX = tl.constexpr(layout.INDEX)
KEY = tl.constexpr(layout.KEY)


@triton.jit(do_not_specialize=["key", "m"])
def _noise(key, m, out_ptr, seed_ptr, row_ptr, index_ptr, batch_stride, channel_stride, pixel_stride,
           channels, pixels, elements, programs,
           BLOCK: tl.constexpr, CHANNELS: tl.constexpr, ALIGNED: tl.constexpr):  # fmt: skip
    program = tl.program_id(0) % programs
    b = (tl.program_id(0) // programs).to(tl.int64)
    c, px, valid = cover(program, channels, pixels, elements, BLOCK, CHANNELS)
    word = key.to(tl.uint32)
    if row_ptr is not None:
        row = tl.load(row_ptr + b).to(tl.int64)
        valid = tl.where(row >= 0, valid, False)  # `&`: the interpreter makes integers of a scalar
        word += tl.load(index_ptr + tl.maximum(row, 0) * INDEX + KEY).to(tl.uint32)
    z = normals(
        tl.load(seed_ptr + b), word, m.to(tl.uint32), c, px,
        program, channels, pixels, BLOCK, CHANNELS, ALIGNED,
    )  # fmt: skip
    at = out_ptr + b * batch_stride + c * channel_stride + px * pixel_stride
    tl.store(at, z, mask=valid)


def objection(args: NoiseArgs) -> str | None:
    small = {name: getattr(args, name) for name in ("seed", "row", "index")}
    return objection_to(_noise, {"out": args.out}, small)


def bind(args: NoiseArgs) -> Callable[..., None]:
    """The launch takes the key and m."""
    device = on_device(args.out.device)
    run: Callable[..., None] | None = None

    def launch(key: int = 0, m: int = 0) -> None:
        nonlocal run
        # Always an int32: a key that came as int64 would be compiled as another kernel.
        key = ((key + 2**31) & 0xFFFFFFFF) - 2**31
        with device():
            if run is None:
                run = start(_noise, *prepare(args, key, m))
            else:
                run(key, m)

    return launch


def prepare(args: NoiseArgs, key: int, m: int) -> tuple[tuple[int], dict[str, Any], dict[str, Any]]:
    """What `start` takes after the kernel."""
    chosen = Cover.choose(args.out.shape[1:], [channel_pixel(args.out)], drawn=True)
    channel_stride, pixel_stride = chosen.steps(channel_pixel(args.out))
    fixed = {
        "out_ptr": args.out,
        "seed_ptr": args.seed,
        "row_ptr": args.row,
        "index_ptr": args.index,
        "batch_stride": args.out.stride(0),
        "channel_stride": channel_stride,
        "pixel_stride": pixel_stride,
        **chosen.sizes,
        **chosen.constants,
    }
    return (args.out.shape[0] * chosen.programs,), {"key": key, "m": m}, fixed


TRITON = Implementation(bind=bind, objection=objection)
