"""Fewer operations: what follows a product or a norm element by element is done where its results are, and
chains of functions become one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from .expression import Expression, TooManyRegisters
from .frames import Frame, collapsed, dims_of, framed
from .operations import (
    ACTIVATIONS,
    Conv,
    GroupNorm,
    LayerNorm,
    Linear,
    Map,
    Operation,
    Pad,
    Upsample,
)
from .rewriting import Uses
from .values import Buffer, Value, same_view

Product = Conv | Linear
Norm = GroupNorm | LayerNorm
MOST = 6  # inputs of a Map that others are merged into


def fused(operations: list[Operation], outputs: list[Value]) -> list[Operation]:
    """The same values from fewer operations."""
    left: list[Operation | None] = list(_padded(operations))
    kept = {value.buffer for value in outputs}
    for merge in (_followers, _chains):
        uses = Uses.of(left)
        for i, operation in enumerate(left):
            if isinstance(operation, Map):
                merge(left, i, uses, kept)
    return needed([operation for operation in left if operation is not None], outputs)


def needed(operations: list[Operation], outputs: list[Value]) -> list[Operation]:
    """Without those whose results nobody reads."""
    read = {value.buffer for value in outputs}
    left = []
    for operation in reversed(operations):
        if any(value.buffer in read for value in operation.writes()):
            read.update(value.buffer for value in operation.values())
            left.append(operation)
    return left[::-1]


def _padded(operations: list[Operation]) -> list[Operation]:
    """Convolutions that put zeros around, and repeat pixels, as they read."""
    pads = {op.out.buffer: op for op in operations if isinstance(op, Pad) and not op.number}
    larger = {op.out.buffer: op for op in operations if isinstance(op, Upsample)}
    made = [_unpadded(op, pads) if isinstance(op, Conv) else op for op in operations]
    return [_from_small(op, larger) if isinstance(op, Conv) else op for op in made]


def _from_small(conv: Conv, larger: dict[Buffer, Upsample]) -> Conv:
    """A convolution that reads each pixel as often as it was repeated for it."""
    up = larger.get(conv.x.buffer)
    if up is None or up.factor != (2, 2) or conv.upsample != 1 or not same_view(up.out, conv.x):
        return conv
    if conv.size != tuple(2 * n for n in up.size):
        return conv
    return replace(conv, x=up.x, size=up.size, upsample=2)


def _unpadded(conv: Conv, pads: dict[Buffer, Pad]) -> Conv:
    pad = pads.get(conv.x.buffer)
    if pad is None or len(pad.x.shape) != 4 or any(pad.before[:2]) or pad.x.strides[1] != 1:
        return conv
    b, c, height, width = pad.x.shape
    whole = conv.x.meta.numel() == pad.out.meta.numel() and conv.size == pad.out.shape[2:]
    if (b, c) != pad.out.shape[:2] or pad.out.offset != conv.x.offset or not whole:
        return conv
    moved = pad.x.meta.movedim(1, -1)
    row = collapsed((height, width), moved.stride()[1:3])
    if row is None:
        return conv
    x = moved.as_strided((b, height * width, c), (moved.stride(0), row[1], 1))
    top, left = (p + q for p, q in zip(conv.padding, pad.before[2:], strict=True))
    return replace(conv, x=pad.x.view(x), size=(height, width), padding=(top, left))


def _sole(left: list[Operation | None], i: int, k: int, uses: Uses, kept: set) -> int | None:
    """The place of the operation that alone makes input k of operation i, which alone reads it."""
    operation = left[i]
    assert isinstance(operation, Map)
    value = operation.inputs[k]
    if not isinstance(value, Value) or value.buffer in kept:
        return None
    writers, readers = uses.writers[value.buffer], uses.readers[value.buffer]
    return writers[0] if len(writers) == 1 and readers == [i] else None


def _move(left: list[Operation | None], uses: Uses, old: int, new: int, made: Operation) -> None:
    """`made` stands at `new`, in place of what was there and at `old`."""
    for place in (old, new):
        gone = left[place]
        assert gone is not None
        for value in gone.writes():
            uses.writers[value.buffer].remove(place)
        for value in gone.values():
            uses.readers[value.buffer].remove(place)
    left[old], left[new] = None, made
    for value in made.writes():
        uses.writers[value.buffer].append(new)
    for value in made.values():
        uses.readers[value.buffer].append(new)


def _followers(left: list[Operation | None], i: int, uses: Uses, kept: set) -> None:
    """A function whose operand a product or a norm makes becomes a part of that."""
    follower = left[i]
    assert isinstance(follower, Map)
    for k in range(len(follower.inputs)):
        place = _sole(left, i, k, uses, kept)
        if place is None or not isinstance(left[place], Product | Norm):
            continue
        made = _absorbed(left[place], follower, k, left, uses)
        if made is not None:
            _move(left, uses, place, i, made)
            return


def _absorbed(
    owner: Any, follower: Map, k: int, left: list[Operation | None], uses: Uses
) -> Operation | None:
    seen = follower.inputs[k]
    assert isinstance(seen, Value)
    dims = dims_of(owner.out, seen)
    if dims is None:
        return None
    out = _rows(follower.out, framed(follower.out, *dims), owner.out.shape)
    if out is None:
        return None

    def operand(term: Any) -> tuple[Value | Tensor, Frame] | None:
        """An input, as the owner's samples, rows and channels."""
        if term[0] != "input" or term[1] == k:
            return None
        given = follower.inputs[term[1]]
        if given.dtype != seen.dtype:
            return None
        value = given if isinstance(given, Value) else Value(given, owner.out.buffer)
        found = framed(value, *dims)
        return None if found is None or found.channel != 1 else (given, found)

    rule = _into_product if isinstance(owner, Product) else _into_norm
    made = rule(owner, follower.term, ("input", k), operand)
    return None if made is None else replace(made, out=out)


def _into_product(owner: Any, term: Any, own: Any, operand: Any) -> Operation | None:
    """gate * activation(sum + bias + shift) + residual."""
    e, (name, *parts) = owner.epilogue, term
    if name in ACTIVATIONS and parts == [own] and name != "none":
        free = e.activation == "none" and e.gate is None and e.residual is None
        return replace(owner, epilogue=replace(e, activation=name)) if free else None
    if name not in ("add", "multiply") or own not in parts or e.residual is not None:
        return None
    found = operand(parts[1 - parts.index(own)])
    if found is None:
        return None
    given, frame = found
    if frame.row == 0 or frame.rows == 1:
        vector = _vector(given, frame)
        if name == "multiply":
            return replace(owner, epilogue=replace(e, gate=vector)) if e.gate is None else None
        if e.shift is None and e.activation == "none" and e.gate is None:
            return replace(owner, epilogue=replace(e, shift=vector))
    if name == "multiply" or not isinstance(given, Value):
        return None
    rows = _rows(given, frame, owner.out.shape)
    return None if rows is None else replace(owner, epilogue=replace(e, residual=rows))


def _into_norm(owner: Any, term: Any, own: Any, operand: Any) -> Operation | None:
    """activation(norm * factor + shift)."""
    name, *parts = term
    if owner.activation != "none":
        return None
    if name in ACTIVATIONS and parts == [own] and name != "none":
        return replace(owner, activation=name)
    if name == "add" and owner.shift is None:
        for part, other in (parts, parts[::-1]):
            shift = operand(other)
            if shift is None or not _per_sample(shift[1]):
                continue
            if part == own:
                return replace(owner, shift=_vector(*shift))
            inner = _into_norm(owner, part, own, operand) if part[0] == "multiply" else None
            if isinstance(inner, Norm):
                return replace(inner, shift=_vector(*shift))
    if name == "multiply" and own in parts and owner.factor is None and owner.shift is None:
        factor = operand(parts[1 - parts.index(own)])
        if factor is not None and _per_sample(factor[1]):
            return replace(owner, factor=_vector(*factor))
    return None


def _per_sample(frame: Frame) -> bool:
    return frame.row == 0 or frame.rows == 1


def _vector(given: Value | Tensor, frame: Frame) -> Value | Tensor:
    """[B, C] of an operand that is the same for all rows of a sample."""
    shape, strides = (frame.samples, frame.channels), (frame.batch, 1)
    if isinstance(given, Value):
        return given.view(given.meta.as_strided(shape, strides, given.offset))
    return given.as_strided(shape, strides, given.storage_offset())


def _rows(value: Value, frame: Frame | None, shape: Any) -> Value | None:
    """[B, N, C] of a value that has as many elements; None where its channels do not lie together."""
    if frame is None or frame.channel != 1:
        return None
    if value.meta.numel() != value.meta.as_strided(shape, (0, 0, 0)).numel():
        return None
    strides = (frame.batch, frame.row, 1)
    if (frame.batch == 0 and frame.samples > 1) or (frame.row == 0 and frame.rows > 1):
        return None
    return value.view(value.meta.as_strided(tuple(shape), strides, value.offset))


def _chains(left: list[Operation | None], i: int, uses: Uses, kept: set) -> None:
    """Functions of what other functions alone make for them."""
    k = 0
    while k < len(left[i].inputs):  # type: ignore[union-attr]
        outer = left[i]
        assert isinstance(outer, Map)
        place = _sole(left, i, k, uses, kept)
        inner = None if place is None else left[place]
        fits = (
            isinstance(inner, Map)
            and same_view(inner.out, outer.inputs[k])  # type: ignore[arg-type]
            and len(inner.inputs) + len(outer.inputs) - 1 <= MOST
        )
        if not fits:
            k += 1
            continue
        assert isinstance(inner, Map) and place is not None
        first = len(outer.inputs)
        shifted = _renumbered(inner.term, {j: first + j for j in range(len(inner.inputs))})
        inputs = [*outer.inputs, *inner.inputs]
        term = _substituted(outer.term, k, shifted)
        numbers = {j: j - (j > k) for j in range(len(inputs))}
        made = Map(outer.out, inputs[:k] + inputs[k + 1 :], _renumbered(term, numbers))
        if not _fits(made):
            k += 1
            continue
        _move(left, uses, place, i, made)


def _fits(made: Map) -> bool:
    """Whether there are registers for all values that are needed at once."""
    expression = Expression()
    expression.store(0, expression.of(made.term))
    try:
        expression.code()
    except TooManyRegisters:
        return False
    return True


def _renumbered(term: Any, numbers: dict[int, int]) -> Any:
    if term[0] == "input":
        return "input", numbers[term[1]]
    if term[0] == "constant":
        return term
    return (term[0], *(_renumbered(part, numbers) for part in term[1:]))


def _substituted(term: Any, k: int, by: Any) -> Any:
    if term[0] == "input":
        return by if term[1] == k else term
    if term[0] == "constant":
        return term
    return (term[0], *(_substituted(part, k, by) for part in term[1:]))
