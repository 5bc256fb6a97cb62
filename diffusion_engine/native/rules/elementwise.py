"""Functions of elements, as terms of a Map."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..operations import Map
from ..values import Value

Term = tuple
READ = (torch.float32, torch.int64, torch.int32, torch.bool)


def rule(low: Any, given: Any, target: Any) -> Any:
    """One function of tensors of any shapes that broadcast."""
    operands: list[Value | Tensor] = []

    def term(operand: Any) -> Term:
        if isinstance(operand, Tensor) and operand.ndim == 0:
            operand = operand.item()
        if isinstance(operand, (Value, Tensor)):
            operands.append(operand)
            return "input", len(operands) - 1
        return "constant", float(operand)

    name = target._schema.name.removeprefix("aten::")
    if name == "mul" and _ones(given.other, given.self):
        return given.self  # as diffusers gives labels a batch
    made = TERMS[name](SimpleNamespace(**vars(given)), term)
    if made is None or any(operand.dtype not in READ for operand in operands):
        return NotImplemented
    meta = low.meta(target, ((), {k: v for k, v in vars(given).items()}))
    if meta.dtype not in (torch.float32, torch.bool):
        return NotImplemented
    return mapped(low, made, operands)


def mapped(low: Any, term: Term, operands: list[Value | Tensor]) -> Value:
    """Emits a Map of operands that broadcast, laid out as the largest of them."""
    shape = torch.broadcast_shapes(*(o.shape for o in operands))
    (first, *_) = operands
    if term == ("input", 0) and isinstance(first, Value) and first.dtype == torch.float32:
        return first
    whole = [o.meta for o in operands if isinstance(o, Value) and o.shape == shape]
    strides = _dense(whole[0]) if whole else torch.empty(shape, device="meta").stride()
    wide = [
        o.view(o.meta.expand(shape)) if isinstance(o, Value) else o.expand(shape) for o in operands
    ]
    out = Value.new(shape, strides)
    low.emit(Map(out, wide, term))
    return out


def _ones(given: Any, other: Any) -> bool:
    """Whether a product with it is the other factor itself."""
    if not isinstance(given, Tensor) or given.dtype != other.dtype or not bool((given == 1).all()):
        return False
    return torch.broadcast_shapes(given.shape, other.shape) == tuple(other.shape)


def _dense(meta: Tensor) -> tuple[int, ...]:
    """Strides in the same order of dimensions, without gaps."""
    strides, step = [0] * meta.ndim, 1
    for d in sorted(range(meta.ndim), key=lambda d: (meta.stride(d) or math.inf, -d)):
        strides[d], step = step, step * meta.shape[d]
    return tuple(strides)


def _unary(name: str) -> Callable[[Any, Any], Term]:
    return lambda a, t: (name, t(a.self))


def _binary(name: str) -> Callable[[Any, Any], Term]:
    return lambda a, t: (name, t(a.self), t(a.other))


def _add(a: Any, t: Any) -> Term:
    other = t(a.other)
    return ("add", t(a.self), other if a.alpha == 1 else ("multiply", other, t(a.alpha)))


def _subtract(a: Any, t: Any) -> Term:
    other = t(a.other)
    return ("subtract", t(a.self), other if a.alpha == 1 else ("multiply", other, t(a.alpha)))


def _rsub(a: Any, t: Any) -> Term | None:
    return ("subtract", t(a.other), t(a.self)) if a.alpha == 1 else None


def _divide(a: Any, t: Any) -> Term | None:
    if getattr(a, "rounding_mode", None) is not None:
        return None
    if isinstance(a.other, (int, float)) and a.other == 1:
        return t(a.self)
    return ("divide", t(a.self), t(a.other))


def _pow(a: Any, t: Any) -> Term | None:
    if isinstance(a.self, (int, float)):
        return ("exp", ("multiply", t(a.exponent), t(math.log(a.self)))) if a.self > 0 else None
    if not isinstance(a.exponent, (int, float)):
        return None
    return ("square", t(a.self)) if a.exponent == 2 else ("pow", t(a.self), t(a.exponent))


def _clamp(a: Any, t: Any) -> Term:
    made = t(a.self)
    if a.min is not None:
        made = ("maximum", made, t(a.min))
    return made if a.max is None else ("minimum", made, t(a.max))


def _addcmul(a: Any, t: Any) -> Term:
    product = ("multiply", t(a.tensor1), t(a.tensor2))
    return ("add", t(a.self), product if a.value == 1 else ("multiply", product, t(a.value)))


def _addcdiv(a: Any, t: Any) -> Term:
    ratio = ("divide", t(a.tensor1), t(a.tensor2))
    return ("add", t(a.self), ratio if a.value == 1 else ("multiply", ratio, t(a.value)))


def _lerp(a: Any, t: Any) -> Term:
    start = t(a.self)
    return ("add", start, ("multiply", t(a.weight), ("subtract", t(a.end), start)))


def _gelu(a: Any, t: Any) -> Term:
    return ("gelu_tanh" if a.approximate == "tanh" else "gelu", t(a.self))


def _where(a: Any, t: Any) -> Term | None:
    return ("where", t(a.condition), t(a.self), t(a.other))


def _leaky(a: Any, t: Any) -> Term:
    x = t(a.self)
    return ("where", ("gt", x, t(0.0)), x, ("multiply", x, t(a.negative_slope)))


def _elu(a: Any, t: Any) -> Term | None:
    if (a.alpha, a.scale, a.input_scale) != (1, 1, 1):
        return None
    x = t(a.self)
    return ("where", ("gt", x, t(0.0)), x, ("subtract", ("exp", x), t(1.0)))


def _softplus(a: Any, t: Any) -> Term | None:
    return ("softplus", t(a.self)) if (a.beta, a.threshold) == (1, 20) else None


TERMS: dict[str, Callable[[Any, Any], Term | None]] = {
    **{name: _unary(name) for name in (
        "abs", "sqrt", "rsqrt", "reciprocal", "exp", "log", "sin", "cos", "tanh", "sigmoid", "silu", "erf",
        "relu", "mish", "hardswish", "floor", "square",
    )},
    "neg": _unary("negate"), "round": _unary("round"), "add": _add, "sub": _subtract, "rsub": _rsub,
    "mul": _binary("multiply"), "multiply": _binary("multiply"), "div": _divide, "true_divide": _divide,
    "pow": _pow, "maximum": _binary("maximum"), "minimum": _binary("minimum"), "clamp": _clamp,
    "clamp_min": lambda a, t: ("maximum", t(a.self), t(a.min)),
    "clamp_max": lambda a, t: ("minimum", t(a.self), t(a.max)),
    "addcmul": _addcmul, "addcdiv": _addcdiv, "lerp": _lerp, "gelu": _gelu, "where": _where,
    "leaky_relu": _leaky, "elu": _elu, "softplus": _softplus,
}  # fmt: skip
