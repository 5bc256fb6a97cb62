"""Checksums of tensors, to see whether they were written to, by whatever way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .native import loaded, module

# Even: times a position, plus 1, it is odd, so that a change of one element always shows.
EVEN = 0x9E3779B185EBCA86 - (1 << 64)
PLAIN = (Tensor, nn.Parameter, nn.Buffer)


def checksums(tensors: Iterable[Tensor], pool: Any = None) -> list[int]:
    """A number for each that is another one after any change of its values, with all but certainty.

    pool  threads of csrc/cpu/native that make them; None has OpenMP's
    Of tensors whose memory is not theirs to read (sparse, meta, subclasses) it is the version.
    """
    given = list(tensors)
    native = not isinstance(module("_cpu"), str)
    found: list[int | Tensor] = [0] * len(given)
    ranges: dict[int, tuple[int, int]] = {}
    kept = []  # until they were read
    for i, tensor in enumerate(given):
        if type(tensor) not in PLAIN or tensor.layout is not torch.strided or tensor.is_meta:
            found[i] = 0 if tensor.is_inference() else tensor._version
            continue
        here = native and tensor.is_cpu
        if not (here and tensor.is_contiguous()):  # most are: all of this before every run
            tensor = _dense(tensor.detach())
        if here:
            kept.append(tensor)
            ranges[i] = (tensor.data_ptr(), tensor.nbytes)
        else:
            found[i] = _weighted(tensor)
    if ranges:
        sums = (pool or loaded("_cpu")).checksums(list(ranges.values()))
        for i, total in zip(ranges, sums, strict=True):
            found[i] = total
    return [int(total) for total in found]


def _dense(tensor: Tensor) -> Tensor:
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor if last else tensor.contiguous()


def _weighted(tensor: Tensor) -> Tensor:
    """The bits of the elements, each times a number of its position, summed modulo 2^64."""
    flat = tensor.permute(0, 2, 3, 1) if not tensor.is_contiguous() else tensor
    parts = flat.reshape(-1).view(torch.uint8)
    size = next(n for n in (4, 2, 1) if parts.numel() % n == 0)
    bits = parts.view({4: torch.int32, 2: torch.int16, 1: torch.uint8}[size]).long()
    place = torch.arange(bits.numel(), device=bits.device)
    return (bits * (place * EVEN + 1)).sum()
