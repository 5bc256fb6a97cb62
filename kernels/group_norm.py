"""The op `group_norm` in Triton; ops/group_norm.py defines it.

A tile is some channels of some pixels of one sample, with either of them contiguous in memory. A
small map is one launch: a program holds a group in registers. A large one is three, so that a
single sample fills a GPU: the moments of each channel over parts of its pixels, those of each group,
and the result. All sizes follow from the shape of one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..backends.layers import group_norm_views, objection_images
from ..ops.group_norm import GroupNormArgs, Launch
from .launch import on_device, out_of_place, start

HELD = 8192  # elements of a group, padded, that one program keeps in registers
TILE = 2048  # elements of a tile
CHANNELS = 64  # of a tile in channels-last memory: 128 bytes of bfloat16
PROGRAMS = 512  # of one large map: several for each multiprocessor


@triton.jit
def _values(
    x_ptr, residual_ptr, b, c, px, valid, x_batch, x_channel, x_pixel, r_batch, r_channel, r_pixel
):
    """x + residual of a tile, 0 where it has no element."""
    h = tl.load(x_ptr + b * x_batch + c * x_channel + px * x_pixel, mask=valid, other=0.0).to(
        tl.float32
    )
    if residual_ptr is not None:
        at = residual_ptr + b * r_batch + c * r_channel + px * r_pixel
        h += tl.load(at, mask=valid, other=0.0).to(tl.float32)
    return h


@triton.jit
def _finish(h, distance, rstd, b, c, px, inside, valid, out_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr,
            summed_ptr, out_batch, out_channel, out_pixel, sum_batch, sum_channel, sum_pixel,
            weight_stride, bias_stride, scale_batch, scale_channel, shift_batch, shift_channel,
            SILU: tl.constexpr):  # fmt: skip
    """Writes a tile's result; c and rstd are columns, `inside` says which c there are, and distance is
    that from the mean."""
    if summed_ptr is not None:
        at = summed_ptr + b * sum_batch + c * sum_channel + px * sum_pixel
        tl.store(at, h.to(summed_ptr.dtype.element_ty), mask=valid)
    factor, offset = rstd + tl.zeros_like(c).to(tl.float32), tl.zeros_like(c).to(tl.float32)
    if weight_ptr is not None:
        factor *= tl.load(weight_ptr + c * weight_stride, mask=inside, other=0.0).to(tl.float32)
    if bias_ptr is not None:
        offset += tl.load(bias_ptr + c * bias_stride, mask=inside, other=0.0).to(tl.float32)
    if scale_ptr is not None:
        at = scale_ptr + b * scale_batch + c * scale_channel
        more = 1.0 + tl.load(at, mask=inside, other=0.0).to(tl.float32)
        factor, offset = factor * more, offset * more
    if shift_ptr is not None:
        at = shift_ptr + b * shift_batch + c * shift_channel
        offset += tl.load(at, mask=inside, other=0.0).to(tl.float32)
    y = distance * factor + offset
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    at = out_ptr + b * out_batch + c * out_channel + px * out_pixel
    tl.store(at, y.to(out_ptr.dtype.element_ty), mask=valid)


@triton.jit
def _group(x_ptr, out_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr, residual_ptr, summed_ptr,
           groups, size, pixels, eps, x_batch, x_channel, x_pixel, out_batch, out_channel, out_pixel,
           r_batch, r_channel, r_pixel, sum_batch, sum_channel, sum_pixel, weight_stride, bias_stride,
           scale_batch, scale_channel, shift_batch, shift_channel,
           SILU: tl.constexpr, C: tl.constexpr, P: tl.constexpr):  # fmt: skip
    """A whole group of `size` channels in one program."""
    b, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    inner = tl.arange(0, C)[:, None]
    c, px = (group * size + inner).to(tl.int64), tl.arange(0, P)[None, :].to(tl.int64)
    inside = inner < size
    valid = inside & (px < pixels)
    h = _values(
        x_ptr,
        residual_ptr,
        b,
        c,
        px,
        valid,
        x_batch,
        x_channel,
        x_pixel,
        r_batch,
        r_channel,
        r_pixel,
    )
    count = size * pixels
    mean = tl.sum(tl.sum(h, axis=1), axis=0) / count
    distance = tl.where(valid, h - mean, 0.0)
    # What rounding left of the mean, which has the values' size, is of the deviations' size.
    distance -= tl.sum(tl.sum(distance, axis=1), axis=0) / count
    distance = tl.where(valid, distance, 0.0)
    variance = tl.sum(tl.sum(distance * distance, axis=1), axis=0) / count
    rstd = 1.0 / tl.sqrt(variance + eps)
    _finish(h, distance, rstd, b, c, px, inside, valid, out_ptr, weight_ptr, bias_ptr, scale_ptr,
            shift_ptr, summed_ptr, out_batch, out_channel, out_pixel, sum_batch, sum_channel,
            sum_pixel, weight_stride, bias_stride, scale_batch, scale_channel, shift_batch,
            shift_channel, SILU)  # fmt: skip


@triton.jit
def _moments(x_ptr, residual_ptr, parts_ptr, channels, pixels, parts, x_batch, x_channel, x_pixel,
             r_batch, r_channel, r_pixel,
             C: tl.constexpr, P: tl.constexpr, TILES: tl.constexpr):  # fmt: skip
    """Of C channels over TILES tiles of P pixels: means and squared deviations to parts[b, 2, c, part]."""
    part, across = tl.program_id(0) % parts, tl.program_id(0) // parts
    blocks = tl.cdiv(channels, C)
    b = (across // blocks).to(tl.int64)
    c = ((across % blocks) * C + tl.arange(0, C)).to(tl.int64)
    inside = c < channels
    first = part * (P * TILES)
    mean, m2 = tl.zeros([C], tl.float32), tl.zeros([C], tl.float32)
    count = tl.full([], 0.0, tl.float32)
    for i in range(TILES):
        px = (first + i * P + tl.arange(0, P)).to(tl.int64)
        valid = inside[:, None] & (px < pixels)[None, :]
        n = tl.minimum(tl.maximum(pixels - first - i * P, 0), P).to(tl.float32)
        h = _values(x_ptr, residual_ptr, b, c[:, None], px[None, :], valid,
                    x_batch, x_channel, x_pixel, r_batch, r_channel, r_pixel)  # fmt: skip
        own = tl.sum(h, axis=1) / tl.maximum(n, 1.0)
        distance = tl.where(valid, h - own[:, None], 0.0)
        total, delta = tl.maximum(count + n, 1.0), own - mean
        mean += delta * (n / total)  # Chan, Golub and LeVeque 1979, equation 2.1
        m2 += tl.sum(distance * distance, axis=1) + delta * delta * (count * n / total)
        count += n
    tl.store(parts_ptr + (b * 2 * channels + c) * parts + part, mean, mask=inside)
    tl.store(parts_ptr + ((b * 2 + 1) * channels + c) * parts + part, m2, mask=inside)


@triton.jit
def _merge(parts_ptr, groups_ptr, groups, size, pixels, parts, span, eps,
           C: tl.constexpr, Q: tl.constexpr):  # fmt: skip
    """The parts of a group's channels, `span` pixels each, to its mean and 1 / deviation."""
    b, group = (tl.program_id(0) // groups).to(tl.int64), tl.program_id(0) % groups
    inner = tl.arange(0, C)[:, None]
    means = parts_ptr + ((b * 2 * groups + group) * size + inner) * parts
    squares = parts_ptr + (((b * 2 + 1) * groups + group) * size + inner) * parts
    mean, m2 = tl.full([], 0.0, tl.float32), tl.full([], 0.0, tl.float32)
    count = tl.full([], 0.0, tl.float32)
    for first in range(0, parts, Q):
        part = first + tl.arange(0, Q)[None, :]
        valid = (inner < size) & (part < parts)
        n = tl.where(valid, tl.minimum(pixels - part * span, span), 0).to(tl.float32)
        own = tl.load(means + part, mask=valid, other=0.0)
        within = tl.load(squares + part, mask=valid, other=0.0)
        more = tl.sum(tl.sum(n, axis=1), axis=0)
        # A sum of means of the values' size loses digits; one of distances from a part's does not.
        pivot = tl.load(parts_ptr + (b * 2 * groups + group) * size * parts)
        middle = pivot + tl.sum(tl.sum(n * (own - pivot), axis=1), axis=0) / more
        distance = tl.where(valid, own - middle, 0.0)
        between = tl.sum(tl.sum(within + n * distance * distance, axis=1), axis=0)
        total, delta = count + more, middle - mean
        mean += delta * (more / total)  # Chan, Golub and LeVeque 1979, equation 2.1
        m2 += between + delta * delta * (count * more / total)
        count = total
    at = groups_ptr + (b * groups + group) * 2
    tl.store(at, mean)
    tl.store(at + 1, 1.0 / tl.sqrt(m2 / count + eps))


@triton.jit
def _apply(x_ptr, out_ptr, weight_ptr, bias_ptr, scale_ptr, shift_ptr, residual_ptr, summed_ptr, groups_ptr,
           groups, size, pixels, tiles, x_batch, x_channel, x_pixel, out_batch, out_channel, out_pixel,
           r_batch, r_channel, r_pixel, sum_batch, sum_channel, sum_pixel, weight_stride, bias_stride,
           scale_batch, scale_channel, shift_batch, shift_channel,
           SILU: tl.constexpr, C: tl.constexpr, P: tl.constexpr):  # fmt: skip
    """One tile of the result from the groups' moments."""
    tile, across = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    channels = groups * size
    blocks = tl.cdiv(channels, C)
    b = (across // blocks).to(tl.int64)
    c = ((across % blocks) * C + tl.arange(0, C)).to(tl.int64)[:, None]
    px = (tile * P + tl.arange(0, P)).to(tl.int64)[None, :]
    inside = c < channels
    valid = inside & (px < pixels)
    at = groups_ptr + (b * groups + c // size) * 2
    mean, rstd = tl.load(at, mask=inside, other=0.0), tl.load(at + 1, mask=inside, other=0.0)
    h = _values(
        x_ptr,
        residual_ptr,
        b,
        c,
        px,
        valid,
        x_batch,
        x_channel,
        x_pixel,
        r_batch,
        r_channel,
        r_pixel,
    )
    _finish(h, h - mean, rstd, b, c, px, inside, valid, out_ptr, weight_ptr, bias_ptr, scale_ptr,
            shift_ptr, summed_ptr, out_batch, out_channel, out_pixel, sum_batch, sum_channel,
            sum_pixel, weight_stride, bias_stride, scale_batch, scale_channel, shift_batch,
            shift_channel, SILU)  # fmt: skip


def objection_group_norm(args: GroupNormArgs) -> str | None:
    """Why this implementation cannot take args, or None."""
    for name, tensor in vars(args).items():
        if isinstance(tensor, Tensor) and tensor.dtype == torch.float64:
            return f"Triton works in float32; {name} is float64"
    return out_of_place(_group, args.x.device) or objection_images(args)


@dataclass(frozen=True)
class Shape:
    """One sample's sizes and the tiles that cover it; `last` where channels are contiguous."""

    groups: int
    size: int
    pixels: int
    last: bool

    @property
    def group(self) -> tuple[int, int]:
        """Channels and pixels of a tile that holds a whole group."""
        return triton.next_power_of_2(self.size), triton.next_power_of_2(self.pixels)

    @property
    def held(self) -> bool:
        return self.group[0] * self.group[1] <= HELD

    @property
    def tile(self) -> tuple[int, int]:
        """Channels and pixels of a tile of a large map."""
        channels, pixels = (triton.next_power_of_2(n) for n in (self.channels, self.pixels))
        across = min(CHANNELS, channels) if self.last else max(1, TILE // pixels)
        return across, TILE // across

    @property
    def channels(self) -> int:
        return self.groups * self.size

    @property
    def tiles(self) -> int:
        """Tiles along the pixels."""
        return triton.cdiv(self.pixels, self.tile[1])

    @property
    def blocks(self) -> int:
        """Tiles across the channels."""
        return triton.cdiv(self.channels, self.tile[0])

    @property
    def tiles_of_part(self) -> int:
        """Tiles that one program takes the moments of, so that some PROGRAMS make up a sample."""
        return min(
            triton.next_power_of_2(triton.cdiv(self.blocks * self.tiles, PROGRAMS)), self.tiles
        )


def strides_of(args: GroupNormArgs) -> dict[str, int]:
    """The kernels' stride parameters; those of absent tensors are 0."""
    views = group_norm_views(args)

    def of(field: str) -> tuple[int, int, int]:
        return views.get(field) or (0, 0, 0)

    found: dict[str, int] = {}
    for prefix, field in (("x", "x"), ("out", "out"), ("r", "residual"), ("sum", "summed")):
        names = (f"{prefix}_batch", f"{prefix}_channel", f"{prefix}_pixel")
        found |= dict(zip(names, of(field), strict=True))
    for field in ("scale", "shift"):
        found |= {f"{field}_batch": of(field)[0], f"{field}_channel": of(field)[1]}
    return found | {f"{field}_stride": of(field)[1] for field in ("weight", "bias")}


def bind_group_norm(args: GroupNormArgs) -> Launch:
    """A launch that takes the tensors. Raises ValueError where there is an objection."""
    if reason := objection_group_norm(args):
        raise ValueError(reason)
    device, runs, parts = on_device(args.x.device), {}, stages(args)

    def launch(tensors: Sequence[Tensor | None]) -> None:
        with device():
            known = dict(zip(TENSORS, tensors, strict=True))
            for stage in parts:
                known |= stage.scratch(tensors[0])  # type: ignore[arg-type]
                given = {name: known[name] for name in stage.changing}
                if stage.kernel in runs:
                    runs[stage.kernel](*given.values())
                else:
                    runs[stage.kernel] = start(stage.kernel, stage.grid, given, stage.fixed)

    return launch


def stages(args: GroupNormArgs) -> list[Stage]:
    """The kernels of a call, in order."""
    channels, pixels = args.x.shape[1], args.x.shape[2:].numel()
    steps = strides_of(args)
    last = steps["x_pixel"] != 1 or (pixels == 1 and steps["x_channel"] == 1)
    shape = Shape(args.groups, channels // args.groups, pixels, last)
    return (one_launch if shape.held else three_launches)(shape, args.x.shape[0], steps, args)


@dataclass(frozen=True)
class Stage:
    """A kernel of a launch; `made` are the sizes of the float32 scratch that it writes."""

    kernel: Any
    grid: tuple[int]
    changing: tuple[str, ...]
    fixed: dict[str, Any]
    made: dict[str, int]

    def scratch(self, like: Tensor) -> dict[str, Tensor]:
        return {name: like.new_empty(n, dtype=torch.float32) for name, n in self.made.items()}


TENSORS = tuple(
    f"{name}_ptr" for name in ("x", "out", "weight", "bias", "scale", "shift", "residual", "summed")
)


def one_launch(shape: Shape, batch: int, steps: dict[str, int], args: GroupNormArgs) -> list[Stage]:
    across, along = shape.group
    sizes = {"groups": shape.groups, "size": shape.size, "pixels": shape.pixels, "eps": args.eps}
    constants = {"SILU": args.silu, "C": across, "P": along} | options(2 * across * along)
    return [Stage(_group, (batch * shape.groups,), TENSORS, sizes | steps | constants, {})]


def three_launches(
    shape: Shape, batch: int, steps: dict[str, int], args: GroupNormArgs
) -> list[Stage]:
    (across, along), count = shape.tile, shape.tiles_of_part
    parts, rows = triton.cdiv(shape.tiles, count), batch * shape.blocks
    tile = {"C": across, "P": along} | options(TILE)
    groups = {"groups": shape.groups, "size": shape.size, "pixels": shape.pixels}
    read = {name: steps[name] for name in steps if name.startswith(("x_", "r_"))}
    column = triton.next_power_of_2(shape.size)
    wide = max(1, min(triton.next_power_of_2(parts), TILE // column))
    merging = {"parts": parts, "span": along * count, "eps": args.eps, "C": column, "Q": wide}
    return [
        Stage(
            _moments, (rows * parts,), ("x_ptr", "residual_ptr", "parts_ptr"),
            {"channels": shape.channels, "pixels": shape.pixels, "parts": parts, "TILES": count}
            | read | tile,
            {"parts_ptr": batch * 2 * shape.channels * parts},
        ),
        Stage(
            _merge, (batch * shape.groups,), ("parts_ptr", "groups_ptr"),
            groups | merging | options(column * wide), {"groups_ptr": batch * shape.groups * 2},
        ),
        Stage(
            _apply, (rows * shape.tiles,), (*TENSORS, "groups_ptr"),
            groups | {"tiles": shape.tiles, "SILU": args.silu} | steps | tile, {},
        ),
    ]  # fmt: skip


def options(elements: int) -> dict[str, int | bool]:
    """Sixteen elements to a thread: two 16-byte accesses of 16-bit numbers. Nothing here has to round as
    another backend does."""
    return {"num_warps": min(max(elements // 512, 1), 8), "enable_fp_fusion": True}
