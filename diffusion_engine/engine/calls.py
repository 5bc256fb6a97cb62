"""Calls of a network that the batch as a whole did not survive: in smaller parts, or one sample at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..executors import GraphError
from ..executors.buffers import Inputs, some
from .errors import EngineError

Call = Callable[..., Sequence[Tensor]]

APART = 1024  # rows until what failed is tried again


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU, in a capture there or by torch's allocator of the host."""
    if isinstance(error, GraphError) and error.__cause__ is not None:
        return out_of_memory(error.__cause__)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def told(error: Exception, size: int | None) -> Exception:
    """An error as its request is told.

    size  entries of every call, None where they have as many as are due
    """
    if size is None or not out_of_memory(error):
        return error
    made = EngineError(
        f"memory ran out in a call of {size} entries, and batch='fixed' makes no others: give the engine a "
        "smaller capacity, or batch='bucket'"
    )
    made.__cause__ = error
    return made


def in_parts(call: Call, given: Inputs, most: int) -> list[Tensor]:
    """The outputs of a call, made by calls of at most so many entries."""
    count = len(given[0])
    made = [
        own(call(*some(given, range(low, min(low + most, count))))) for low in range(0, count, most)
    ]
    return [torch.cat(parts) for parts in zip(*made, strict=True)]


def own(outs: Sequence[Tensor]) -> list[Tensor]:
    """Copies: the next call of a compiled network may write where this one did."""
    return [out.clone() for out in outs]


def alone(call: Call, given: Inputs, entries: Sequence[int], size: int | None) -> list[Tensor]:
    """The outputs [len(entries), ...] of one sample's entries, called without the others.

    size  entries of every call of this batch, or None: then the entry stands where it stood, among copies
    """
    if size is None:
        return own(call(*some(given, entries)))
    index = [entries[0]] * size
    for entry in entries:
        index[entry] = entry
    return [out[list(entries)] for out in call(*some(given, index))]


class Limit:
    """How many entries a call may have: half as many where memory runs out, and twice as many again after
    APART rows, since whoever else used the memory may be gone. Where that fails the wait doubles, until a
    limit has held as long.

    room  entries of the largest call
    most  that a call may have now
    """

    def __init__(self, room: int) -> None:
        self.room = self.most = room
        self._rows, self._wait = 0, APART
        self._tried = False  # whether this limit was doubled, and has not held for long

    def row(self) -> None:
        """A row is about to be done."""
        if self.most == self.room and not self._tried:
            return
        self._rows += 1
        if self._rows < self._wait:
            return
        if self._tried:
            self._wait = APART
        self._tried = self.most < self.room
        self.most, self._rows = min(2 * self.most, self.room), 0

    def halve(self, calls: int) -> None:
        """Memory ran out in a call of so many entries."""
        if self._tried:
            self._wait *= 2
        self.most = max(1, min(self.most, calls) // 2)
        self._rows, self._tried = 0, False
