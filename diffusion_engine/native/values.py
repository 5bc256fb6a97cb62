"""`Value`: a tensor of a recorded network, as a view of memory that is planned later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(eq=False)
class Buffer:
    """Memory of one tensor.

    size   in elements
    dtype  of these
    """

    size: int
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(eq=False, frozen=True)
class Value:
    """A view of a buffer: torch itself says what becomes of shape, strides and offset.

    meta  a tensor of the device "meta" on the buffer's storage
    """

    meta: Tensor
    buffer: Buffer

    @classmethod
    def new(
        cls, shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype = torch.float32
    ) -> Value:
        """A view that covers a buffer of its own."""
        size = (
            1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if all(shape) else 0
        )
        buffer = Buffer(size, dtype)
        storage = torch.empty(size, dtype=dtype, device="meta")
        return cls(storage.as_strided(tuple(shape), tuple(strides)), buffer)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.meta.shape)

    @property
    def strides(self) -> tuple[int, ...]:
        return self.meta.stride()

    @property
    def offset(self) -> int:
        return int(self.meta.storage_offset())

    @property
    def dtype(self) -> torch.dtype:
        return self.meta.dtype

    def view(self, meta: Tensor) -> Value:
        """Another view of the same buffer."""
        return Value(meta, self.buffer)

    def of(self, storage: Tensor) -> Tensor:
        """The tensor itself, where the buffer is this storage."""
        return storage.as_strided(self.shape, self.strides, storage.storage_offset() + self.offset)


def channels_last(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of memory in which the channels, dimension 1, lie together."""
    inner = [1] * len(shape)
    step = shape[1]
    for i in range(len(shape) - 1, 1, -1):
        inner[i], step = step, step * shape[i]
    inner[0] = step
    return tuple(inner)


def contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of memory in which the last dimension lies together."""
    strides, step = [1] * len(shape), 1
    for i in range(len(shape) - 1, -1, -1):
        strides[i], step = step, step * max(1, shape[i])
    return tuple(strides)


def shares(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of the device "meta" are views of one storage."""
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata


def same_view(one: Value, other: Value) -> bool:
    """Whether two values are the same elements in the same order."""
    return (
        one.buffer is other.buffer
        and one.shape == other.shape
        and one.offset == other.offset
        and all(
            a == b for a, b, n in zip(one.strides, other.strides, one.shape, strict=True) if n > 1
        )
    )


def flat(given: Any) -> list[Any]:
    """What is in nested lists and tuples."""
    if isinstance(given, (list, tuple)):
        return [leaf for part in given for leaf in flat(part)]
    return [given]
