"""Operations done by torch, one by one: what the native ones are held against."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .arena import plan
from .operations import Attention, Conv, Get, Linear, Operation, tensor
from .record import Recorded
from .values import Value


def run(recorded: Recorded, inputs: Sequence[Tensor], half: Collection[int] = ()) -> list[Tensor]:
    """The outputs of a call.

    half  operations whose products have inputs rounded to bf16, by their places
    """

    def each(i: int, operation: Operation, get: Get) -> None:
        (rounded if i in half else type(operation).run)(operation, get)

    return _walked(recorded, inputs, each)


def effects(
    recorded: Recorded, inputs: Sequence[Tensor], half: Collection[int]
) -> dict[int, float]:
    """How far each of these operations is off in bf16, of its largest element; all before it are exact."""
    found: dict[int, float] = {}

    def each(i: int, operation: Operation, get: Get) -> None:
        if i not in half:
            operation.run(get)
            return
        rounded(operation, get)
        made = get(operation.out).clone()
        operation.run(get)
        found[i] = off(get(operation.out), made)

    _walked(recorded, inputs, each)
    return found


def off(want: Tensor, got: Tensor) -> float:
    """The largest difference, of the largest element."""
    return float((want - got).abs().max() / want.abs().max().clamp(min=1e-30))


def rounded(operation: Operation, get: Get) -> None:
    """A product of inputs that are rounded to bf16: convolution, linear layer or attention."""
    if isinstance(operation, Attention):
        _attention(operation, get)
        return
    assert isinstance(operation, Conv | Linear)
    x = Value(operation.x.meta, operation.x.buffer)  # known by itself: a residual may be the same
    made: Operation
    if isinstance(operation, Conv):
        made = replace(operation, x=x, weight=nearest(operation.weight))
    else:
        made = replace(operation, x=x, weights=tuple(map(nearest, operation.weights)))
    made.run(lambda value: nearest(get(value)) if value is x else get(value))


def _attention(op: Attention, get: Get) -> None:
    """Numbers between 0 and 1 are rounded, before a division by their sum."""
    q, k, v = (nearest(get(value)) for value in (op.q, op.k, op.v))
    scores = op.scale * (q @ k.transpose(-1, -2))
    if op.mask is not None:
        mask = tensor(op.mask, get)
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    get(op.out).copy_(nearest(powers) @ v / powers.sum(-1, keepdim=True))


def nearest(given: Tensor) -> Tensor:
    """In float32, rounded to bf16."""
    return given.bfloat16().float()


def _walked(
    recorded: Recorded, inputs: Sequence[Tensor], each: Callable[[int, Any, Get], None]
) -> list[Tensor]:
    places, size = plan(recorded.operations, recorded.inputs, recorded.outputs)
    arena = torch.full((size // 4,), float("nan")).view(torch.uint8)

    def get(value: Value) -> Tensor:
        at = places[value.buffer]
        return value.of(arena[at : at + value.buffer.bytes].view(value.dtype))

    with torch.no_grad():
        for value, given in zip(recorded.inputs, inputs, strict=True):
            get(value).copy_(given)
        for i, operation in enumerate(recorded.operations):
            each(i, operation, get)
        return [get(value).clone() for value in recorded.outputs]
