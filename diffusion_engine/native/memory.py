"""Memory that recorded networks are replayed on."""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import suppress

import torch
from torch import Tensor

_libc = ctypes.CDLL(None) if os.name == "posix" else None
LARGE = 2 << 20  # bytes of a large page


def zeros(size: int) -> Tensor:
    """Bytes, in large pages where there are enough of them and the system has such pages: a product walks
    through many megabytes of weights, and the processor knows where few small pages lie."""
    if size < LARGE:
        return torch.zeros(size, dtype=torch.uint8)
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # of a system without them
        block.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(block, dtype=torch.uint8)


def moved(tensor: Tensor) -> Tensor:
    """A copy in such memory."""
    return zeros(tensor.nbytes).view(tensor.dtype).view(tensor.shape).copy_(tensor)


def given_back() -> None:
    """Memory that is free and that the C library keeps for later goes back to the system."""
    trim = getattr(_libc, "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
