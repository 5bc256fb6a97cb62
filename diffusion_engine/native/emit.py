"""Operations as what the C++ runner is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _cpu
from . import operations as ops
from .values import Value
from .weights import Weights

ACTIVATIONS = ("none", "silu", "gelu", "gelu_tanh", "relu", "quick_gelu")
AXES = 5  # of a copy


class Emitter:
    """Parameters of operations whose values lie at known addresses.

    address  of a value's first element
    weights  what constants are packed into
    """

    def __init__(self, address: Callable[[Value], int], weights: Weights) -> None:
        self.address, self.weights = address, weights

    def params(self, operation: ops.Operation) -> Any:
        """What Program.add takes; None where only torch does it."""
        make = MAKERS.get(type(operation))
        return None if make is None else make(self, operation)

    def rows(self, value: Value) -> tuple[int, int, int]:
        """[B, N, C] as (address, batch stride, row stride)."""
        return self.address(value), value.strides[0], value.strides[1]

    def sample(self, given: Value | Tensor) -> tuple[int, int]:
        """[B, C] as (address, batch stride)."""
        if isinstance(given, Value):
            return self.address(given), given.strides[0]
        kept = self.weights.plain(given)
        return kept.data_ptr(), kept.stride(0)

    def constant(self, given: Tensor) -> int:
        return self.weights.plain(given).data_ptr()

    def epilogue(self, params: Any, epilogue: ops.Epilogue) -> None:
        if epilogue.bias is not None:
            params.bias = self.constant(epilogue.bias)
        if epilogue.shift is not None:
            params.shift = self.sample(epilogue.shift)
        params.activation = ACTIVATIONS.index(epilogue.activation)
        if epilogue.gate is not None:
            params.gate = self.sample(epilogue.gate)
        if epilogue.residual is not None:
            params.residual = self.rows(epilogue.residual)


def conv(emit: Emitter, op: ops.Conv) -> Any:
    p = _cpu.ConvParams()
    p.batch, _, p.out_channels = op.out.shape
    p.channels = op.x.shape[2]
    p.height, p.width = op.size
    p.out_height, p.out_width = op.out_size
    p.kernel_height, p.kernel_width = op.weight.shape[2:]
    p.stride_y, p.stride_x = op.stride
    p.pad_top, p.pad_left = op.padding
    p.dilation_y, p.dilation_x = op.dilation
    p.upsample, p.groups = op.upsample, op.groups
    p.x, p.out = emit.rows(op.x), emit.rows(op.out)
    p.weight = emit.weights.conv(op.weight, op.groups).data_ptr()
    emit.epilogue(p, op.epilogue)
    return p


def linear(emit: Emitter, op: ops.Linear) -> Any:
    """A convolution of one tap over a picture of one line."""
    p = _cpu.ConvParams()
    p.batch, rows, p.out_channels = op.out.shape
    p.channels = op.x.shape[2]
    p.width = p.out_width = rows
    p.x, p.out = emit.rows(op.x), emit.rows(op.out)
    p.weight = emit.weights.conv(op.weight[:, :, None, None], 1).data_ptr()
    emit.epilogue(p, op.epilogue)
    return p


def group_norm(emit: Emitter, op: ops.GroupNorm) -> Any:
    p = _norm(emit, op, _cpu.NormGroupsParams())
    p.groups = op.groups
    return p


def layer_norm(emit: Emitter, op: ops.LayerNorm) -> Any:
    p = _norm(emit, op, _cpu.NormRowsParams(), 0)
    p.rms = op.rms
    return p


def _norm(emit: Emitter, op: Any, p: Any, *more: int) -> Any:
    p.eps, p.unit = op.eps, 0.0
    _walk(emit, op, p)
    if op.weight is not None:
        p.weight = emit.constant(op.weight)
    if op.bias is not None:
        p.bias = emit.constant(op.bias)
    p.activation = ACTIVATIONS.index(op.activation)
    for name, given in (("scale", op.factor), ("shift", op.shift)):
        if given is not None:
            setattr(p, name, (*emit.sample(given), *more))
    return p


def _walk(emit: Emitter, op: Any, p: Any) -> Any:
    """Over rows of x [B, N, C]."""
    p.batch, p.rows, p.channels = op.x.shape
    p.x, p.out = emit.rows(op.x), emit.rows(op.out)
    return p


def softmax(emit: Emitter, op: ops.Softmax) -> Any:
    return _walk(emit, op, _cpu.SoftmaxRowsParams())


def reduce(emit: Emitter, op: ops.Reduce) -> Any:
    p = _walk(emit, op, _cpu.ReduceRowsParams())
    p.over_rows = op.dim == 1
    p.factor = 1.0 / op.x.shape[op.dim] if op.mean else 1.0
    return p


def attention(emit: Emitter, op: ops.Attention) -> Any:
    if op.scale < 0 or (op.mask is not None and _mask(emit, op.mask)[1][-1] not in (0, 1)):
        return None
    p = _cpu.AttendParams()
    p.batch, p.heads, p.queries, p.dim = op.q.shape
    p.keys, p.scale = op.k.shape[2], op.scale
    for name in ("q", "k", "v", "out"):
        value = getattr(op, name)
        setattr(p, name, (emit.address(value), *value.strides[:3]))
    if op.mask is not None:
        at, strides = _mask(emit, op.mask)
        if strides[-1] != 1:
            return None
        p.mask = (at, *strides[:3])
    return p


def matmul(emit: Emitter, op: ops.MatMul) -> Any:
    p = _cpu.MatmulParams()
    p.batch, p.heads, p.rows, p.columns = op.out.shape
    p.depth, p.alpha = op.a.shape[-1], op.alpha
    p.transposed = op.b.strides[3] != 1
    for name in ("a", "out"):
        value = getattr(op, name)
        setattr(p, name, (emit.address(value), *value.strides[:3]))
    batch, head, *inner = op.b.strides
    p.b = emit.address(op.b), batch, head, inner[1] if p.transposed else inner[0]
    return p


def _mask(emit: Emitter, mask: Value | Tensor) -> tuple[int, tuple[int, ...]]:
    if isinstance(mask, Value):
        return emit.address(mask), mask.strides
    return emit.weights.kept(mask).data_ptr(), mask.stride()


def copy(emit: Emitter, op: ops.Copy) -> Any:
    """Axes that lie as one in both places count as one."""
    if op.out.dtype != torch.float32 or op.x.dtype != torch.float32:
        return None
    at, strides = _source(emit, op.x)
    merged: list[tuple[int, int, int]] = []
    for size, old, new in zip(op.out.shape, strides, op.out.strides, strict=True):
        if size == 1:
            continue
        if merged:
            outer, outer_old, outer_new = merged[-1]
            if outer_old == size * old and outer_new == size * new:
                merged[-1] = outer * size, old, new
                continue
        merged.append((size, old, new))
    if len(merged) > AXES:
        return None
    merged = [(1, 0, 0)] * (AXES - len(merged)) + merged
    p = _cpu.CopyParams()
    p.x, p.out = at, emit.address(op.out)
    p.sizes, p.x_strides, p.out_strides = map(list, zip(*merged, strict=True))
    return p


def _source(emit: Emitter, given: Value | Tensor) -> tuple[int, tuple[int, ...]]:
    if isinstance(given, Value):
        return emit.address(given), given.strides
    kept = emit.weights.plain(given)
    return kept.data_ptr(), kept.stride()


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


MAKERS: dict[type, Callable[[Emitter, Any], Any]] = {
    ops.Conv: conv,
    ops.Linear: linear,
    ops.Copy: copy,
    ops.Pad: pad,
    ops.GroupNorm: group_norm,
    ops.LayerNorm: layer_norm,
    ops.Softmax: softmax,
    ops.Reduce: reduce,
    ops.Attention: attention,
    ops.MatMul: matmul,
}
