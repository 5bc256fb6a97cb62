"""Operations done by torch, one by one: what the native ones are held against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .arena import plan
from .record import Recorded
from .values import Value


def run(recorded: Recorded, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of a call."""
    places, size = plan(recorded.operations, recorded.inputs, recorded.outputs)
    arena = torch.full((size // 4,), float("nan")).view(torch.uint8)

    def get(value: Value) -> Tensor:
        at = places[value.buffer]
        return value.of(arena[at : at + value.buffer.bytes].view(value.dtype))

    with torch.no_grad():
        for value, given in zip(recorded.inputs, inputs, strict=True):
            get(value).copy_(given)
        for operation in recorded.operations:
            operation.run(get)
        return [get(value).clone() for value in recorded.outputs]
