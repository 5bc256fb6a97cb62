"""How the programs of a kernel cover the elements of a sample, on the device and on the host.

A run: the lanes of a program are neighbours in logical order (c, px), which is memory order where
every tensor is contiguous. A tile: CHANNELS channels x BLOCK / CHANNELS pixels, channels fastest,
which is the order of channels-last memory; a run there would leave each program with one of the C
channels of every cache line, and C programs to fetch it. CHANNELS = 0 says run.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_CHANNELS = 64  # of a tile
WARPS = 4


@triton.jit
def cover(program, channels, pixels, elements, BLOCK: tl.constexpr, CHANNELS: tl.constexpr):
    """Channel and pixel of each lane, in 64 bits, and whether the lane has an element.

    In a run they are the first element and the lane, which strides of 1 and 1 address.
    """
    lane = tl.arange(0, BLOCK)
    if CHANNELS == 0:
        first = program.to(tl.int64) * BLOCK
        return first, lane, first + lane < elements
    else:
        across = tl.cdiv(channels, CHANNELS)
        c = (program % across) * CHANNELS + lane % CHANNELS
        px = (program // across) * (BLOCK // CHANNELS) + lane // CHANNELS
        return c.to(tl.int64), px.to(tl.int64), (c < channels) & (px < pixels)


def strides(tensor: Tensor, axis: int) -> tuple[int, int] | None:
    """Channel and pixel stride of a tensor with its channels at `axis`; None without a single one."""
    pixel = step = 0
    sizes = tensor.shape[axis + 1 :]
    for size, stride in zip(reversed(sizes), reversed(tensor.stride()[axis + 1 :]), strict=True):
        if size == 1:
            continue
        pixel = pixel or stride
        if step not in (0, stride):
            return None
        step = stride * size
    pixel = pixel or 1
    # The strides of axes of size 1 are arbitrary in torch.
    channel = tensor.stride(axis) if tensor.shape[axis] > 1 else pixel * sizes.numel()
    return channel, pixel


@dataclass(frozen=True)
class Cover:
    """The choice for one launch. `tile` is the kernel's CHANNELS."""

    channels: int
    pixels: int
    block: int
    tile: int

    @classmethod
    def choose(
        cls, state: torch.Size, layouts: Iterable[tuple[int, int]], block: int, drawn: bool
    ) -> Cover:
        """For samples [C, *pixel] in tensors with these (channel, pixel) strides.

        drawn: whether elements need their logical number. If not, one dense order is as good as
        another, as long as all tensors have it.
        """
        channels, pixels = state[0], state[1:].numel()
        found = set(layouts)
        run = found == {(pixels, 1)} or (found == {(1, channels)} and not drawn)
        tile = 0 if run else min(triton.next_power_of_2(channels), MOST_CHANNELS)
        return cls(channels, pixels, block, tile)

    @property
    def programs(self) -> int:
        """Programs per sample."""
        if self.tile == 0:
            return triton.cdiv(self.channels * self.pixels, self.block)
        across = triton.cdiv(self.channels, self.tile)
        return across * triton.cdiv(self.pixels, self.block // self.tile)

    @property
    def sizes(self) -> dict[str, int]:
        return {
            "channels": self.channels,
            "pixels": self.pixels,
            "elements": self.channels * self.pixels,
            "programs": self.programs,
        }

    @property
    def constants(self) -> dict[str, Any]:
        """The kernel's constants, and the options that the bits of its results depend on."""
        return {
            "BLOCK": self.block,
            "CHANNELS": self.tile,
            "ALIGNED": self.pixels % 4 == 0,
            "num_warps": WARPS,
            "enable_fp_fusion": False,
        }

    def steps(self, layout: tuple[int, int]) -> tuple[int, int]:
        """What the kernel multiplies the two results of `cover` with, to address a tensor."""
        return layout if self.tile else (1, 1)


def interpreted(kernel: object) -> bool:
    """Whether TRITON_INTERPRET was set when the kernel's file was imported."""
    return not isinstance(kernel, triton.runtime.JITFunction)


def objection(kernel: object, name: str, tensors: dict[str, tuple[Tensor | None, int]]) -> str | None:
    """Why a kernel cannot take these tensors, given as name: (tensor, its channel axis)."""
    given = [(label, t, axis) for label, (t, axis) in tensors.items() if t is not None]
    device = given[0][1].device
    if device.type != "cuda" and not interpreted(kernel):
        return (
            f"{name}: Triton runs on CUDA devices and the tensors are on {device}; "
            "TRITON_INTERPRET=1, set before the start, interprets it anywhere"
        )
    for label, tensor, axis in given:
        if strides(tensor, axis) is None:
            return (
                f"{name}: the pixels of {label} {list(tensor.shape)} with strides "
                f"{list(tensor.stride())} have no single stride; make it contiguous or channels last"
            )
    return None


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device, which is another one at most on a machine with several."""
    several = device.type == "cuda" and torch.cuda.device_count() > 1
    return torch.cuda.device(device) if several else nullcontext()
