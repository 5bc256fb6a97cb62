"""How the programs of a kernel cover the elements of a sample, on the device and on the host.

A run: the lanes of a program are neighbours in logical order (c, px), which is memory order where
every tensor is contiguous. A tile: CHANNELS channels x BLOCK / CHANNELS pixels, channels fastest,
which is the order of channels-last memory; a run there would leave each program with one of the C
channels of every cache line, and C programs to fetch it. CHANNELS = 0 says run.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..backends.views import strides

MOST_CHANNELS = 64  # of a tile
# Four elements to a thread: a 16-byte access of float32 and one block of Philox. With eight, bfloat16
# would be loaded by eights and float32 by fours, and go through shared memory in between.
LEAST_BLOCK = 128


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


def channel_pixel(tensor: Tensor) -> tuple[int, int]:
    """Channel and pixel stride of a tensor [B, C, *pixel] that the objection let pass."""
    found = strides(tensor)
    assert found is not None, "there was no objection"
    _, channel, pixel = found
    # The stride of an axis of size 1 is arbitrary in torch.
    return (channel if tensor.shape[1] > 1 else pixel * tensor.shape[2:].numel()), pixel


@dataclass(frozen=True)
class Cover:
    """The choice for one launch. `block` and `tile` are the kernel's BLOCK and CHANNELS."""

    channels: int
    pixels: int
    block: int
    tile: int

    @classmethod
    def choose(
        cls, state: torch.Size, layouts: Iterable[tuple[int, int]], drawn: bool, most: int = 1024
    ) -> Cover:
        """For samples [C, *pixel] in tensors with these (channel, pixel) strides.

        drawn: whether elements need their logical number. If not, one dense order is as good as
        another, as long as all tensors have it.
        most: the largest block, at least 256.
        """
        channels, pixels = state[0], state[1:].numel()
        found = set(layouts)
        run = found == {(pixels, 1)} or (found == {(1, channels)} and not drawn)
        tile = 0 if run else min(triton.next_power_of_2(channels), MOST_CHANNELS)
        lanes = tile * triton.next_power_of_2(pixels) or channels * pixels
        smallest = max(LEAST_BLOCK, 4 * tile)
        block = min(most, max(smallest, triton.next_power_of_2(lanes)))
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
            "num_warps": self.block // LEAST_BLOCK,
            "enable_fp_fusion": False,
        }

    def steps(self, layout: tuple[int, int]) -> tuple[int, int]:
        """What the kernel multiplies the two results of `cover` with, to address a tensor."""
        return layout if self.tile else (1, 1)
