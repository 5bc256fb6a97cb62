"""Concatenations without copies: a part is made where it belongs."""

from __future__ import annotations

from .operations import Call, Copy, Embedding, Map, Operation, Pad
from .rewriting import Uses, rewritten
from .values import Buffer, Value

ANYWHERE = (Map, Copy, Pad)  # read and write elements that lie apart
Dim = tuple[int, int, int]  # size, old stride, new stride


def joined(operations: list[Operation], fixed: set[Buffer]) -> list[Operation]:
    """The same without copies of whole buffers into parts of others.

    fixed  buffers that stay where they are: inputs and outputs
    """
    made, i = list(operations), 0
    while i < len(made):
        copy = made[i]
        if isinstance(copy, Copy) and isinstance(copy.x, Value):
            placed = _placed(made, i, copy, fixed)
            if placed is not None:
                made = placed
                continue
        i += 1
    return made


def _placed(
    operations: list[Operation], i: int, copy: Copy, fixed: set[Buffer]
) -> list[Operation] | None:
    """The operations where what is copied is in its place from the beginning; None where that cannot be."""
    assert isinstance(copy.x, Value)
    old, new = copy.x.buffer, copy.out.buffer
    whole = copy.x.meta.numel() == old.size and not copy.x.offset
    if old in fixed or old is new or not whole or old.dtype != new.dtype:
        return None
    uses, dims = Uses.of(operations), _merged(copy)
    bound = any(isinstance(operations[w], (Call, Embedding)) for w in uses.writers[old])
    if bound or dims is None:
        return None
    changed: dict[int, Operation] = {}
    for place in {*uses.writers[old], *uses.readers[old]} - {i}:
        operation = operations[place]
        every = (*operation.values(), *operation.writes())
        views = {id(v): moved(v, copy.out, dims) for v in every if v.buffer is old}
        if None in views.values():
            return None
        if not isinstance(operation, ANYWHERE) and any(
            v.buffer is old and _apart(v, views[id(v)]) for v in every
        ):
            return None
        changed[place] = rewritten(operation, lambda v: views.get(id(v)) or v)  # noqa: B023
    return [changed.get(j, op) for j, op in enumerate(operations) if j != i]


def _apart(old: Value, new: Value | None) -> bool:
    """Whether elements that lay together no longer do."""
    assert new is not None
    return any(
        a == 1 and b != 1 and n > 1
        for a, b, n in zip(old.strides, new.strides, old.shape, strict=True)
    )


def _merged(copy: Copy) -> list[Dim] | None:
    """The dimensions of what is copied, dense from the innermost on, with their strides in both places."""
    assert isinstance(copy.x, Value)
    dims = sorted(
        (d for d in zip(copy.x.shape, copy.x.strides, copy.out.strides, strict=True) if d[0] > 1),
        key=lambda d: d[1],
    )
    made: list[Dim] = []
    step = 1
    for size, old, new in dims:
        if old != step:
            return None
        step *= size
        if made and new == made[-1][0] * made[-1][2]:
            made[-1] = made[-1][0] * size, *made[-1][1:]
        else:
            made.append((size, old, new))
    return made


def moved(value: Value, place: Value, dims: list[Dim]) -> Value | None:
    """A view of the old buffer as one of the new; None where it crosses the ends of a dimension."""
    digits, rest = [], value.offset
    for _, old, _ in reversed(dims):
        digits.append(rest // old)
        rest %= old
    digits.reverse()
    reach, strides = list(digits), []
    for size, stride in zip(value.shape, value.strides, strict=True):
        if size == 1 or stride == 0:
            strides.append(0 if stride == 0 else 1)
            continue
        at = max(d for d, (_, old, _) in enumerate(dims) if old <= stride)
        if stride % dims[at][1]:
            return None
        steps = stride // dims[at][1]
        reach[at] += steps * (size - 1)
        strides.append(steps * dims[at][2])
    if any(far >= size for far, (size, _, _) in zip(reach, dims, strict=True)):
        return None
    offset = place.offset + sum(d * new for d, (_, _, new) in zip(digits, dims, strict=True))
    return place.view(place.meta.as_strided(value.shape, tuple(strides), offset))
