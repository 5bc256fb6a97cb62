"""Linear layers that read the same rows are one product."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from .joined import moved
from .operations import Epilogue, Linear, Operation
from .rewriting import Uses, rewritten
from .values import Buffer, Value, contiguous

Joint = dict[tuple, Tensor]
NARROW = 4  # columns, whose sums have an order of their own


def merged(operations: list[Operation], outputs: list[Value], joint: Joint) -> list[Operation]:
    """The same with one product for all linear layers of a value: of attention's queries, keys and values, of
    all blocks that read an embedding.

    joint  biases that were put together so far, by where these and their weights lie
    """
    kept = {value.buffer for value in outputs}
    groups: dict[tuple, list[int]] = defaultdict(list)
    uses = Uses.of(operations)
    for i, operation in enumerate(operations):
        if isinstance(operation, Linear) and _plain(operation, uses, kept):
            x = operation.x
            groups[x.buffer, x.shape, x.strides, x.offset].append(i)
    made = list(operations)
    gone: set[int] = set()
    for places in groups.values():
        if len(places) > 1 and (found := _one(made, places, joint)):
            made = found
            gone.update(places[1:])
    return [operation for i, operation in enumerate(made) if i not in gone]


def _plain(operation: Linear, uses: Uses, kept: set[Buffer]) -> bool:
    e, buffer = operation.epilogue, operation.out.buffer
    alone = e.shift is None and e.gate is None and e.residual is None and e.activation == "none"
    whole = operation.out.meta.numel() == buffer.size and not operation.out.offset
    wide = operation.out.shape[2] > NARROW
    return alone and whole and wide and len(uses.writers[buffer]) == 1 and buffer not in kept


def _one(operations: list[Operation], places: list[int], joint: Joint) -> list[Operation] | None:
    """The operations with the first of these doing the work of all; None where that cannot be."""
    layers = [operations[i] for i in places]
    assert all(isinstance(layer, Linear) for layer in layers)
    widths = [layer.out.shape[2] for layer in layers]
    b, n, _ = layers[0].out.shape
    shape = (b, n, sum(widths))
    whole = Value.new(shape, contiguous(shape))
    slots: dict[Buffer, Value] = {}
    first = 0
    for layer, width in zip(layers, widths, strict=True):
        slots[layer.out.buffer] = whole.view(whole.meta.narrow(2, first, width))
        first += width
    made = []
    for i, operation in enumerate(operations):
        if i in places:
            made.append(operation)
            continue
        views: dict[int, Value] = {}
        for value in (*operation.values(), *operation.writes()):
            if value.buffer in slots:
                place = slots[value.buffer]
                found = moved(value, place, _dims(place, value.buffer))
                if found is None:
                    return None
                views[id(value)] = found
        made.append(rewritten(operation, lambda v: views.get(id(v)) or v) if views else operation)  # noqa: B023
    epilogue = Epilogue(_bias(layers, joint))  # type: ignore[arg-type]
    weights = tuple(weight for layer in layers for weight in layer.weights)  # type: ignore[attr-defined]
    made[places[0]] = Linear(whole, layers[0].x, weights, epilogue)  # type: ignore[attr-defined]
    return made


def _dims(place: Value, buffer: Buffer) -> list[tuple[int, int, int]]:
    """Dimensions of a dense [B, N, C] and their strides where it lies now, innermost first."""
    b, n, c = place.shape
    return [(c, 1, 1), (b * n, c, place.strides[1])]


def _bias(layers: list[Linear], joint: Joint) -> Tensor | None:
    biases = [layer.epilogue.bias for layer in layers]
    if not any(bias is not None for bias in biases):
        return None
    key = tuple(_key(given) for layer in layers for given in (*layer.weights, layer.epilogue.bias))
    if key not in joint:
        joint[key] = torch.cat(
            [
                torch.zeros(layer.out.shape[2]) if bias is None else bias
                for layer, bias in zip(layers, biases, strict=True)
            ]
        )
    return joint[key]


def _key(given: Tensor | None) -> tuple:
    return () if given is None else (given.data_ptr(), tuple(given.shape), given.stride())
