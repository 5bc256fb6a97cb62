"""Operations done by torch, one by one: what the native ones are held against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .record import Recorded
from .values import Buffer, Value


def run(recorded: Recorded, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a call."""
    memory: dict[Buffer, Tensor] = {}

    def get(value: Value) -> Tensor:
        if value.buffer not in memory:
            fill = float("nan") if value.dtype.is_floating_point else 0
            memory[value.buffer] = torch.full((value.buffer.size,), fill, dtype=value.dtype)
        return value.of(memory[value.buffer])

    with torch.no_grad():
        for value, given in zip(recorded.inputs, inputs, strict=True):
            get(value).copy_(given)
        for operation in recorded.operations:
            operation.run(get)
        return [get(value).clone() for value in recorded.outputs]
