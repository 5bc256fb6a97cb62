"""Parameters of the layers: products, norms and attention."""

from __future__ import annotations

from typing import Any

from ..backends.native import module
from . import operations as ops
from .emit import ACTIVATIONS, Emitter

_cpu: Any = module("_cpu")  # where it is missing nothing is recorded


def conv(emit: Emitter, op: ops.Conv) -> Any:
    half = emit.half(op)
    if not half and (tile := emit.tile(op)):
        return _winograd(emit, op, tile)
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
    if half:
        p.half = emit.weights.halved((op.weight,)).data_ptr()
    else:
        p.weight = emit.weights.conv(op.weight, op.groups).data_ptr()
    emit.epilogue(p, op.epilogue)
    return p


def _winograd(emit: Emitter, op: ops.Conv, tile: int) -> Any:
    p = _cpu.WinogradConvParams()
    p.batch, _, p.out_channels = op.out.shape
    p.channels, p.tile, p.upsample = op.x.shape[2], tile, op.upsample
    p.height, p.width = op.size
    p.x, p.out = emit.rows(op.x), emit.rows(op.out)
    p.given = emit.given(op)
    weights = emit.weights
    kept = weights.panels(op.weight) if p.given else weights.winograd(op.weight, tile)
    p.weight = kept.data_ptr()
    emit.epilogue(p, op.epilogue)
    return p


def linear(emit: Emitter, op: ops.Linear) -> Any:
    """A convolution of one tap over a picture of one line."""
    p = _cpu.ConvParams()
    p.batch, rows, p.out_channels = op.out.shape
    p.channels = op.x.shape[2]
    p.width = p.out_width = rows
    p.x, p.out = emit.rows(op.x), emit.rows(op.out)
    if emit.half(op):
        p.half = emit.weights.halved(op.weights).data_ptr()
    else:
        p.weight = emit.weights.linear(op.weights).data_ptr()
    emit.epilogue(p, op.epilogue)
    return p


def group_norm(emit: Emitter, op: ops.GroupNorm) -> Any:
    p = _norm(emit, op, _cpu.NormGroupsParams())
    p.groups = op.groups
    return p


def layer_norm(emit: Emitter, op: ops.LayerNorm) -> Any:
    p = _norm(emit, op, _cpu.NormRowsParams())
    p.rms = op.rms
    return p


def _norm(emit: Emitter, op: Any, p: Any) -> Any:
    p.eps, p.unit = op.eps, 0.0
    _walk(emit, op, p)
    if op.weight is not None:
        p.weight = emit.constant(op.weight)
    if op.bias is not None:
        p.bias = emit.constant(op.bias)
    p.activation = ACTIVATIONS.index(op.activation)
    for name, given in (("scale", op.factor), ("shift", op.shift)):
        if given is not None:
            setattr(p, name, emit.sample(given))
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
    if op.scale < 0:
        return None
    p = _cpu.AttendParams()
    p.batch, p.heads, p.queries, p.dim = op.q.shape
    p.keys, p.scale = op.k.shape[2], op.scale
    if emit.half(op):
        p.bf16 = True
    for name in ("q", "k", "v", "out"):
        value = getattr(op, name)
        setattr(p, name, (emit.address(value), *value.strides[:3]))
    if op.mask is not None:
        at, strides = emit.source(op.mask)
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
