"""Bits of tensors, and the memory around them."""

import ctypes
import mmap

import torch


def same(a, b):
    """Equal bits, NaN included."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = (t.clone(memory_format=torch.contiguous_format).flatten() for t in (a, b))
    return torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def before_a_wall(tensor):
    """A copy whose last element is followed by a page that nobody may read."""
    size = tensor.numel() * tensor.element_size()
    room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = torch.frombuffer(mmap.mmap(-1, room + mmap.PAGESIZE), dtype=torch.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    none = 0
    assert libc.mprotect(ctypes.c_void_p(memory.data_ptr() + room), mmap.PAGESIZE, none) == 0
    return memory[room - size : room].view(tensor.dtype).view(tensor.shape).copy_(tensor)
