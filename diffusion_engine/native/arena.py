"""Where buffers lie: one block of memory, in which those that live at different times share places."""

from __future__ import annotations

from collections.abc import Sequence

from .operations import Operation
from .values import Buffer, Value

LINE = 64  # bytes of a cache line, at which buffers begin


def plan(
    operations: Sequence[Operation], inputs: Sequence[Value], outputs: Sequence[Value]
) -> tuple[dict[Buffer, int], int]:
    """(first byte of each buffer, bytes of all): the largest first, each at the lowest place that is free for
    as long as it lives."""
    lives = _lives(operations, inputs, outputs)
    placed: list[tuple[int, int, int, int]] = []  # first byte, end, first and last operation
    at: dict[Buffer, int] = {}
    for buffer in sorted(lives, key=lambda b: (-b.bytes, lives[b])):
        first, last = lives[buffer]
        size, low = -(-max(1, buffer.bytes) // LINE) * LINE, 0
        for start, end, born, dead in sorted(placed):
            if born > last or dead < first:
                continue
            if start - low >= size:
                break
            low = max(low, end)
        at[buffer] = low
        placed.append((low, low + size, first, last))
    return at, max((end for _, end, _, _ in placed), default=0)


def _lives(
    operations: Sequence[Operation], inputs: Sequence[Value], outputs: Sequence[Value]
) -> dict[Buffer, tuple[int, int]]:
    """From the first to the last operation that needs it."""
    lives: dict[Buffer, tuple[int, int]] = {value.buffer: (-1, -1) for value in inputs}
    for i, operation in enumerate(operations):
        for value in (*operation.writes(), *operation.values()):
            first, _ = lives.get(value.buffer, (i, i))
            lives[value.buffer] = first, i
    for value in outputs:
        first, _ = lives[value.buffer]
        lives[value.buffer] = first, len(operations)
    return lives
