"""Parameters of what moves elements, or maps them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..backends.native import module
from . import operations as ops
from .emit import Emitter
from .expression import DIMS, Expression, filled

_cpu: Any = module("_cpu")  # where it is missing nothing is recorded

AXES = 6  # of a copy
WORDS = {
    torch.float32: 1,
    torch.int32: 1,
    torch.int64: 2,
    torch.float64: 2,
}  # of the size of a float


def copy(emit: Emitter, op: ops.Copy) -> Any:
    words = WORDS.get(op.out.dtype)
    if words is None or op.x.dtype != op.out.dtype:
        return None
    at, strides = emit.source(op.x)
    parts = [(words * s for s in own) for own in (strides, op.out.strides)]
    axes = _axes((*op.out.shape, words), [(*own, 1) for own in parts])
    if len(axes) > AXES:
        return None
    p = _cpu.CopyParams()
    p.x, p.out = at, emit.address(op.out)
    p.sizes, (p.x_strides, p.out_strides) = _spread(axes, 2, AXES)
    return p


def _axes(shape: Sequence[int], strides: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """(size, a stride of each tensor), outermost first; axes that lie as one in all of them count as one."""
    made: list[tuple[int, ...]] = []
    for size, *steps in zip(shape, *strides, strict=True):
        if size == 1:
            continue
        if made and all(a == size * b for a, b in zip(made[-1][1:], steps, strict=True)):
            made[-1] = made[-1][0] * size, *steps
        else:
            made.append((size, *steps))
    return made


def _spread(
    axes: Sequence[tuple[int, ...]], tensors: int, count: int
) -> tuple[list[int], list[list[int]]]:
    """Sizes and strides of `count` axes, of which the first ones are not used."""
    full = [(1, *(0,) * tensors)] * (count - len(axes)) + list(axes)
    sizes, *strides = map(list, zip(*full, strict=True))
    return sizes, strides


def mapped(emit: Emitter, op: ops.Map) -> Any:
    sources = [emit.source(given) for given in op.inputs]
    # The axis along which the result lies together is the innermost.
    order = sorted(range(len(op.out.shape)), key=lambda d: -op.out.strides[d])
    every = [[strides[d] for d in order] for strides in (op.out.strides, *(s for _, s in sources))]
    axes = _axes([op.out.shape[d] for d in order], every)
    if len(axes) > DIMS:
        return None
    sizes, strides = _spread(axes, 1 + len(sources), DIMS)
    expression = Expression()
    expression.store(0, expression.of(op.term))
    inputs = [
        (at, own, str(given.dtype).removeprefix("torch."))
        for (at, _), own, given in zip(sources, strides[1:], op.inputs, strict=True)
    ]
    outputs = [(emit.address(op.out), strides[0])]
    return filled(_cpu.MapParams(), expression.code(), sizes, inputs, outputs)


def upsample(emit: Emitter, op: ops.Upsample) -> Any:
    p = _picture(emit, op, _cpu.UpsampleParams())
    p.out_height, p.out_width = (n * f for n, f in zip(op.size, op.factor, strict=True))
    p.y_step, p.x_step = (1.0 / f for f in op.factor)
    return p


def pool(emit: Emitter, op: ops.Pool) -> Any:
    p = _picture(emit, op, _cpu.PoolParams())
    p.out_height, p.out_width = (
        (n - k) // s + 1 for n, k, s in zip(op.size, op.window, op.stride, strict=True)
    )
    p.kernel_y, p.kernel_x = op.window
    p.stride_y, p.stride_x = op.stride
    p.greatest = op.maximum
    return p


def _picture(emit: Emitter, op: Any, p: Any) -> Any:
    p.batch, _, p.channels = op.x.shape
    p.height, p.width = op.size
    p.x, p.out = emit.rows(op.x), emit.rows(op.out)
    return p


def embedding(emit: Emitter, op: ops.Embedding) -> Any:
    labels = _axes(op.x.shape, [op.x.strides])
    rows = _axes(op.out.shape[:2], [op.out.strides[:2]])
    if len(labels) > 1 or len(rows) > 1 or any(step != 1 for _, step in labels):
        return None
    table, p = emit.weights.plain(op.table), _cpu.EmbeddingParams()
    p.table, p.table_row = table.data_ptr(), table.stride(0)
    p.rows, p.features = table.shape
    p.labels, p.count = emit.address(op.x), op.x.meta.numel()
    p.out, p.out_row = emit.address(op.out), rows[0][1] if rows else p.features
    return p


def pad(emit: Emitter, op: ops.Pad) -> Any:
    missing = AXES - len(op.out.shape)
    if missing < 0:
        return None
    p, ones, zeros = _cpu.CopyParams(), [1] * missing, [0] * missing
    p.x, p.out, p.value = emit.address(op.x), emit.address(op.out), op.number
    p.sizes, p.inside = [*ones, *op.out.shape], [*ones, *op.x.shape]
    p.before = [*zeros, *op.before]
    p.x_strides, p.out_strides = [*zeros, *op.x.strides], [*zeros, *op.out.strides]
    return p
