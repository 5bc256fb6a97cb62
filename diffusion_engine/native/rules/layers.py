"""Layers: products, norms, attention, and what changes the number of pixels."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .. import operations as ops
from ..values import Value, channels_last, contiguous, flat
from .elementwise import mapped
from .rows import floats, layer, many, rows, sequence

SCALES = ("scale_factors", "scales", "scales_h", "scales_w")  # as overloads of upsampling name them


def linear(low: Any, given: Any, target: Any) -> Any:
    x, weight, bias = given.input, given.weight, given.bias
    if not layer(x, weight, bias):
        return NotImplemented
    shape = (*x.shape[:-1], weight.shape[0])
    out = low.new(shape)
    low.emit(ops.Linear(sequence(low, out), sequence(low, x), (weight,), ops.Epilogue(bias)))
    return out


def addmm(low: Any, given: Any, target: Any) -> Any:
    """bias + x weight^T, as a linear layer taken apart has it."""
    x, weight, bias = given.mat1, given.mat2, given.self
    if not layer(x, weight, bias) or bias.ndim != 1:
        return NotImplemented
    if (given.alpha, given.beta) != (1, 1):
        return NotImplemented
    given.input, given.weight, given.bias = x, weight.T, bias
    return linear(low, given, target)


def matmul(low: Any, given: Any, target: Any) -> Any:
    a, b = given.self, getattr(given, "mat2", None)
    b = given.other if b is None else b
    if isinstance(a, Value) and isinstance(b, Tensor) and b.ndim == 2 and floats(a):
        given.input, given.weight, given.bias = a, b.T, None
        return linear(low, given, target)
    if not (isinstance(a, Value) and isinstance(b, Value) and floats(a, b)):
        return NotImplemented
    if len(a.shape) != len(b.shape) or len(a.shape) < 3 or a.shape[:-2] != b.shape[:-2]:
        return NotImplemented
    return product(low, a, b, 1.0)


def baddbmm(low: Any, given: Any, target: Any) -> Any:
    """Attention as diffusers once spelled it: beta is 0."""
    a, b = given.batch1, given.batch2
    if given.beta != 0 or not (isinstance(a, Value) and isinstance(b, Value) and floats(a, b)):
        return NotImplemented
    return product(low, a, b, float(given.alpha))


def product(low: Any, a: Value, b: Value, alpha: float) -> Value:
    out = low.new((*a.shape[:-1], b.shape[-1]))
    a = a if a.strides[-1] == 1 or a.shape[-1] == 1 else low.copied(a)
    b = b if 1 in b.strides[-2:] else low.copied(b)
    low.emit(ops.MatMul(_heads(low, out), _heads(low, a), _heads(low, b), alpha))
    return out


def _heads(low: Any, value: Value) -> Value:
    """[..., M, N] as [B, heads, M, N]."""
    if len(value.shape) == 3:
        return value.view(value.meta.unsqueeze(1))
    if len(value.shape) == 4:
        return value
    shape = (value.shape[0], -1, *value.shape[-2:])
    try:
        return value.view(value.meta.view(shape))
    except RuntimeError:
        copy = low.copied(value)
        return copy.view(copy.meta.view(shape))


def group_norm(low: Any, given: Any, target: Any) -> Any:
    x, weight, bias = given.input, given.weight, given.bias
    if not layer(x, weight, bias):
        return NotImplemented
    out = Value.new(x.shape, channels_last(x.shape))
    made = ops.GroupNorm(rows(low, out), rows(low, x), given.num_groups, given.eps, weight, bias)
    low.emit(made)
    return out


def layer_norm(low: Any, given: Any, target: Any) -> Any:
    return _layer_norm(low, given, given.bias, False)


def native_layer_norm(low: Any, given: Any, target: Any) -> Any:
    made = _layer_norm(low, given, given.bias, False)
    return made if made is NotImplemented else (made, None, None)


def rms_norm(low: Any, given: Any, target: Any) -> Any:
    if given.eps is None:
        given.eps = torch.finfo(torch.float32).eps
    return _layer_norm(low, given, None, True)


def _layer_norm(low: Any, given: Any, bias: Any, rms: bool) -> Any:
    x, weight = given.input, given.weight
    if not layer(x, weight, bias):
        return NotImplemented
    if len(given.normalized_shape) != 1:
        return NotImplemented
    out = low.new(x.shape)
    made = ops.LayerNorm(sequence(low, out), sequence(low, x), given.eps, weight, bias, rms=rms)
    low.emit(made)
    return out


def softmax(low: Any, given: Any, target: Any) -> Any:
    x = given.self
    half = getattr(given, "half_to_float", False) or getattr(given, "dtype", None) not in (
        None,
        torch.float32,
    )
    if half or not floats(x) or given.dim % len(x.shape) != len(x.shape) - 1:
        return NotImplemented
    out = low.new(x.shape)
    low.emit(ops.Softmax(sequence(low, out), sequence(low, x)))
    return out


def attention(low: Any, given: Any, target: Any) -> Any:
    q, k, v, mask = given.query, given.key, given.value, given.attn_mask
    if not all(isinstance(t, Value) and floats(t) and len(t.shape) == 4 for t in (q, k, v)):
        return NotImplemented
    if given.dropout_p or given.is_causal or q.shape[1] != k.shape[1] or q.shape[-1] != v.shape[-1]:
        return NotImplemented
    if mask is not None and mask.dtype == torch.bool:
        mask = _added(low, mask)
    if mask is not None and mask.dtype != torch.float32:
        return NotImplemented
    q, k, v = (t if t.strides[-1] == 1 else low.copied(t) for t in (q, k, v))
    b, heads, tokens, dim = q.shape
    scale = dim**-0.5 if given.scale is None else given.scale
    # The heads of a token lie together, as what comes after reads them.
    made = Value.new((b, tokens, heads, dim), contiguous((b, tokens, heads, dim)))
    out = made.view(made.meta.permute(0, 2, 1, 3))
    if mask is not None:
        wide = (b, heads, tokens, k.shape[2])
        mask = mask.view(mask.meta.expand(wide)) if isinstance(mask, Value) else mask.expand(wide)
    low.emit(ops.Attention(out, q, k, v, scale, mask))
    return out


def _added(low: Any, mask: Value | Tensor) -> Value | Tensor:
    """0 where a mask holds, else -inf."""
    if isinstance(mask, Value):
        term = ("where", ("input", 0), ("constant", 0.0), ("constant", -math.inf))
        meta = mask.meta
        for d, stride in enumerate(mask.strides):  # what is the same for all is made once
            meta = meta if stride else meta.narrow(d, 0, 1)
        made = mapped(low, term, [mask.view(meta)])
        return made.view(made.meta.expand(mask.shape))
    return low.derived("added", mask, lambda m: torch.zeros(m.shape).masked_fill(~m, -math.inf))  # type: ignore[no-any-return]


def pool(low: Any, given: Any, target: Any) -> Any:
    x = given.self
    window = many(given.kernel_size, 2)
    stride = many(given.stride, 2) if given.stride else window
    size = x.shape[2:]
    even = all((n - k) % s == 0 for n, k, s in zip(size, window, stride, strict=True))
    plain = not any(many(given.padding, 2)) and (even or not given.ceil_mode)
    plain = plain and set(many(getattr(given, "dilation", 1), 2)) == {1}
    if not plain or getattr(given, "divisor_override", None) or not floats(x) or len(x.shape) != 4:
        return NotImplemented
    made = [(n - k) // s + 1 for n, k, s in zip(size, window, stride, strict=True)]
    shape = (*x.shape[:2], *made)
    out = Value.new(shape, channels_last(shape))
    maximum = "max" in target._schema.name
    low.emit(ops.Pool(rows(low, out), rows(low, x), tuple(size), window, stride, maximum))
    return out


def upsample(low: Any, given: Any, target: Any) -> Any:
    """By whole factors, to the nearest."""
    x = getattr(given, "input", None)
    x = given.self if x is None else x
    if not floats(x):
        return NotImplemented
    shape = tuple(low.meta(target, ((), vars(given))).shape)
    factors = [o / i for o, i in zip(shape[2:], x.shape[2:], strict=True)]
    # Where factors are said the pixels are theirs: 2.1 times 6 pixels are 12, and other ones than of 2.
    said = [f for f in flat([getattr(given, name, None) for name in SCALES]) if f is not None]
    if any(f != int(f) for f in factors) or (said and said != factors):
        return NotImplemented
    lead = (1,) * (2 - len(factors))
    out = Value.new(shape, channels_last(shape))
    size, factor = (*lead, *x.shape[2:]), (*lead, *map(int, factors))
    low.emit(ops.Upsample(rows(low, out), rows(low, x), size, factor))
    return out


def embedding(low: Any, given: Any, target: Any) -> Any:
    x, table = given.indices, given.weight
    if not isinstance(x, Value) or isinstance(table, Value) or x.dtype != torch.int64:
        return NotImplemented
    if table.dtype != torch.float32:
        return NotImplemented
    out = low.new((*x.shape, table.shape[1]))
    rows_of = (
        x.view(x.meta.reshape(x.shape[0], -1)) if len(x.shape) > 1 else x.view(x.meta[:, None])
    )
    low.emit(ops.Embedding(sequence(low, out), rows_of, table))
    return out
