"""Rows of channels: how an operation sees a tensor, whatever its dimensions are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .values import Value

Dim = tuple[int, ...]


class Frame(NamedTuple):
    """Samples of rows of channels: element (b, i, c) is at offset + b batch + i row + c channel."""

    samples: int
    rows: int
    channels: int
    batch: int
    row: int
    channel: int


def collapsed(sizes: Sequence[int], strides: Sequence[int]) -> tuple[int, int] | None:
    """(size, stride) of several dimensions as one, outermost first; None where they are not evenly spaced."""
    size, stride = 1, 0
    for n, step in zip(reversed(sizes), reversed(strides), strict=True):
        if n == 1:
            continue
        if size == 1:
            size, stride = n, step
        elif step == size * stride:
            size *= n
        else:
            return None
    return size, stride


def framed(value: Value, samples: Dim, rows: Dim, channels: Dim) -> Frame | None:
    """A value whose dimensions are taken together so, each outermost first; None where they cannot be."""
    parts = []
    for dims in (samples, rows, channels):
        found = collapsed([value.shape[d] for d in dims], [value.strides[d] for d in dims])
        if found is None:
            return None
        parts.append(found)
    (b, batch), (n, row), (c, channel) = parts
    return Frame(b, n, c, batch, row, channel if c > 1 else 1)


def dims_of(owner: Value, seen: Value) -> tuple[Dim, Dim, Dim] | None:
    """How the dimensions of `seen`, a view that covers `owner`, are the samples, rows and channels of it.

    owner  [B, N, C], as the operation that makes it has it
    """
    (b, n, c), (batch, row, channel) = owner.shape, owner.strides
    if seen.offset != owner.offset or seen.meta.numel() != owner.meta.numel():
        return None
    samples: list[int] = []
    rows: list[int] = []
    channels: list[int] = []
    order = sorted(range(len(seen.shape)), key=lambda d: -seen.strides[d])
    left = [b, n, c]
    for d in order:
        size, stride = seen.shape[d], seen.strides[d]
        if size == 1:
            continue
        for part, (steps, unit, dims) in enumerate(
            ((b, batch, samples), (n, row, rows), (c, channel, channels))
        ):
            if steps > 1 and left[part] % size == 0 and stride == left[part] // size * unit:
                left[part] //= size
                dims.append(d)
                break
        else:
            return None
    return None if left != [1, 1, 1] else (tuple(samples), tuple(rows), tuple(channels))
