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
from torch import Tensor

from ..backends.group_norm import FIELDS, layout_objection
from ..backends.group_norm import strides_of as views_of
from ..ops.group_norm import GroupNormArgs, Launch
from ..ops.op import Implementation
from .group_norm_kernels import _apply, _group, _merge, _moments
from .launch import on_device, out_of_place, start

HELD = 8192  # elements of a group, padded, that one program keeps in registers
TILE = 2048  # elements of a tile
CHANNELS = 64  # of a tile in channels-last memory: 128 bytes of bfloat16
PROGRAMS = 512  # of one large map: several for each multiprocessor


def objection(args: GroupNormArgs) -> str | None:
    for name, tensor in vars(args).items():
        if isinstance(tensor, Tensor) and tensor.dtype == torch.float64:
            return f"Triton works in float32; {name} is float64"
    return out_of_place(_group, args.x.device) or layout_objection(args)


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
    views = views_of(args)

    def of(field: str) -> tuple[int, int, int]:
        return views.get(field) or (0, 0, 0)

    found: dict[str, int] = {}
    for prefix, field in (("x", "x"), ("out", "out"), ("r", "residual"), ("sum", "summed")):
        names = (f"{prefix}_batch", f"{prefix}_channel", f"{prefix}_pixel")
        found |= dict(zip(names, of(field), strict=True))
    for field in ("scale", "shift"):
        found |= {f"{field}_batch": of(field)[0], f"{field}_channel": of(field)[1]}
    return found | {f"{field}_stride": of(field)[1] for field in ("weight", "bias")}


def bind(args: GroupNormArgs) -> Launch:
    """A launch that takes the tensors."""
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


TENSORS = tuple(f"{name}_ptr" for name in FIELDS)


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


TRITON = Implementation(bind=bind, objection=objection)
