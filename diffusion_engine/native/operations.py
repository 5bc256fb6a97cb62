"""The operations of a recorded network. What each does is said by its reference, in torch.

One file because the passes read it as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .values import Value, flat

Get = Callable[[Value], Tensor]
Operand = Value | Tensor | None  # a tensor is a weight, or another constant

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


@dataclass(eq=False)
class Operation:
    """Reads values and constants, and writes `out` [B, N, C] unless it says otherwise."""

    out: Value

    def values(self) -> Iterator[Value]:
        """All that it reads."""
        for part in fields(self):
            if part.name != "out":
                yield from _values(getattr(self, part.name))

    def writes(self) -> Iterator[Value]:
        yield self.out

    def run(self, get: Get) -> None:
        """The reference: computes it with torch."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        return type(self).__name__.lower()


def _values(given: Any) -> Iterator[Value]:
    if isinstance(given, Value):
        yield given
    elif isinstance(given, Epilogue):
        yield from (v for v in (given.shift, given.gate, given.residual) if isinstance(v, Value))
    elif isinstance(given, (list, tuple)):
        yield from (v for v in flat(given) if isinstance(v, Value))


def tensor(operand: Operand, get: Get) -> Tensor:
    assert operand is not None
    return get(operand) if isinstance(operand, Value) else operand


@dataclass(eq=False)
class Epilogue:
    """What becomes of sums: gate * activation(sum + bias + shift) + residual.

    bias      [C], a constant
    shift     [B, C]; gate [B, C]
    residual  [B, N, C]
    """

    bias: Tensor | None = None
    shift: Operand = None
    activation: str = "none"
    gate: Operand = None
    residual: Value | None = None

    def run(self, sums: Tensor, get: Get) -> Tensor:
        """sums: [B, N, C]."""
        y = sums if self.bias is None else sums + self.bias
        if self.shift is not None:
            y = y + tensor(self.shift, get)[:, None]
        y = ACTIVATIONS[self.activation](y)
        if self.gate is not None:
            y = y * tensor(self.gate, get)[:, None]
        return y if self.residual is None else y + get(self.residual)


@dataclass(eq=False)
class Conv(Operation):
    """A convolution of pictures, [B, height x width, C] in memory; of signals with height 1.

    x         [B, H x W, C]; size (H, W) of it
    padding   zeros above and on the left; below and on the right as many as out_size needs
    weight    [out, in / groups, kh, kw]
    upsample  1, or 2 where each pixel of x is read four times
    """

    x: Value
    weight: Tensor
    size: tuple[int, ...]
    out_size: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    upsample: int = 1
    epilogue: Epilogue = field(default_factory=Epilogue)

    def run(self, get: Get) -> None:
        x = get(self.x)
        picture = x.permute(0, 2, 1).reshape(len(x), -1, *self.size)
        if self.upsample > 1:
            picture = F.interpolate(picture, scale_factor=self.upsample)
        around = []
        for i in (1, 0):
            reach = (self.out_size[i] - 1) * self.stride[i]
            reach += self.dilation[i] * (self.weight.shape[2 + i] - 1) + 1
            around += [self.padding[i], reach - self.padding[i] - picture.shape[2 + i]]
        picture = F.pad(picture, around)
        sums = F.conv2d(picture, self.weight, None, self.stride, 0, self.dilation, self.groups)
        get(self.out).copy_(self.epilogue.run(sums.flatten(2).permute(0, 2, 1), get))


@dataclass(eq=False)
class Linear(Operation):
    """x [B, N, K] times weight [C, K], whose rows are those of `weights` one after another."""

    x: Value
    weights: tuple[Tensor, ...]
    epilogue: Epilogue = field(default_factory=Epilogue)

    @property
    def weight(self) -> Tensor:
        return self.weights[0] if len(self.weights) == 1 else torch.cat(self.weights)

    def run(self, get: Get) -> None:
        get(self.out).copy_(self.epilogue.run(get(self.x) @ self.weight.T, get))


@dataclass(eq=False)
class MatMul(Operation):
    """alpha a [B, heads, M, K] times b [B, heads, K, N]."""

    a: Value
    b: Value
    alpha: float = 1.0

    def run(self, get: Get) -> None:
        get(self.out).copy_(self.alpha * (get(self.a) @ get(self.b)))


@dataclass(eq=False)
class GroupNorm(Operation):
    """activation(norm * factor + shift) over groups of the channels of x [B, N, C].

    factor and shift  [B, C]
    """

    x: Value
    groups: int
    eps: float
    weight: Tensor | None = None
    bias: Tensor | None = None
    factor: Operand = None
    shift: Operand = None
    activation: str = "none"

    def run(self, get: Get) -> None:
        x = get(self.x).permute(0, 2, 1)
        y = F.group_norm(x, self.groups, self.weight, self.bias, self.eps).permute(0, 2, 1)
        get(self.out).copy_(
            ACTIVATIONS[self.activation](modulated(y, self.factor, self.shift, get))
        )


@dataclass(eq=False)
class LayerNorm(Operation):
    """activation(norm * factor + shift) over the channels of x [B, N, C], without their mean where `rms`.

    factor and shift  [B, C]
    """

    x: Value
    eps: float
    weight: Tensor | None = None
    bias: Tensor | None = None
    factor: Operand = None
    shift: Operand = None
    activation: str = "none"
    rms: bool = False

    def run(self, get: Get) -> None:
        x = get(self.x)
        if self.rms:
            y = F.rms_norm(x, x.shape[-1:], self.weight, self.eps)
            y = y if self.bias is None else y + self.bias
        else:
            y = F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        get(self.out).copy_(
            ACTIVATIONS[self.activation](modulated(y, self.factor, self.shift, get))
        )


def modulated(y: Tensor, factor: Operand, shift: Operand, get: Get) -> Tensor:
    """y [B, N, C] by factor and shift [B, C]."""
    if factor is not None:
        y = y * tensor(factor, get)[:, None]
    return y if shift is None else y + tensor(shift, get)[:, None]


@dataclass(eq=False)
class Softmax(Operation):
    """Over the last axis of x [B, N, C]."""

    x: Value

    def run(self, get: Get) -> None:
        get(self.out).copy_(get(self.x).softmax(-1))


@dataclass(eq=False)
class Attention(Operation):
    """softmax(scale q k^T + mask) v, of q, k, v and out [B, heads, tokens, dim]."""

    q: Value
    k: Value
    v: Value
    scale: float
    mask: Operand = None

    def run(self, get: Get) -> None:
        mask = None if self.mask is None else tensor(self.mask, get)
        made = F.scaled_dot_product_attention(
            get(self.q), get(self.k), get(self.v), mask, scale=self.scale
        )
        get(self.out).copy_(made)


@dataclass(eq=False)
class Reduce(Operation):
    """The sum or mean of x [B, N, C] over its rows (dim 1: out [B, 1, C]) or channels (dim 2: [B, N, 1])."""

    x: Value
    dim: int
    mean: bool

    def run(self, get: Get) -> None:
        x = get(self.x)
        made = x.mean(self.dim, keepdim=True) if self.mean else x.sum(self.dim, keepdim=True)
        get(self.out).copy_(made)


@dataclass(eq=False)
class Map(Operation):
    """An expression over the elements of several tensors of one shape, broadcast by their strides.

    inputs  values or constants, of the shape of `out`
    term    ("input", i), ("constant", value), or (function, term, ...)
    call    the same of tensors, for the reference
    """

    inputs: list[Value | Tensor]
    term: tuple

    def run(self, get: Get) -> None:
        given = [tensor(i, get) for i in self.inputs]
        get(self.out).copy_(evaluated(self.term, given))

    @property
    def name(self) -> str:
        return "map " + " ".join(dict.fromkeys(functions(self.term)))


def functions(term: tuple) -> Iterator[str]:
    """The functions of a term, innermost first."""
    if term[0] in ("input", "constant"):
        return
    for part in term[1:]:
        yield from functions(part)
    yield term[0]


def evaluated(term: tuple, inputs: Sequence[Tensor]) -> Any:
    """A term of tensors."""
    name, *parts = term
    if name == "input":
        return inputs[parts[0]].float()
    if name == "constant":
        return parts[0]
    return FUNCTIONS[name](*(evaluated(part, inputs) for part in parts))


def _tensors(function: Any) -> Callable[..., Tensor]:
    def call(*given: Any) -> Tensor:
        return function(*(g if isinstance(g, Tensor) else torch.tensor(float(g)) for g in given))

    return call


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    name: _tensors(function)
    for name, function in {
        "add": torch.add, "subtract": torch.subtract, "multiply": torch.multiply, "divide": torch.divide,
        "negate": torch.neg, "maximum": torch.maximum, "minimum": torch.minimum, "abs": torch.abs,
        "square": torch.square, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal,
        "exp": torch.exp, "log": torch.log, "sin": torch.sin, "cos": torch.cos, "tanh": torch.tanh,
        "sigmoid": torch.sigmoid, "silu": F.silu, "gelu": F.gelu, "erf": torch.erf, "relu": F.relu,
        "gelu_tanh": ACTIVATIONS["gelu_tanh"], "softplus": F.softplus, "mish": F.mish,
        "hardswish": F.hardswish, "pow": torch.pow, "floor": torch.floor, "round": torch.round,
        "where": lambda c, a, b: torch.where(c != 0, a, b),
        "gt": lambda a, b: (a > b).float(), "ge": lambda a, b: (a >= b).float(),
        "lt": lambda a, b: (a < b).float(), "le": lambda a, b: (a <= b).float(),
        "eq": lambda a, b: (a == b).float(), "ne": lambda a, b: (a != b).float(),
    }.items()
}  # fmt: skip


@dataclass(eq=False)
class Copy(Operation):
    """x as it is, into `out` of its shape."""

    x: Value | Tensor

    def run(self, get: Get) -> None:
        get(self.out).copy_(tensor(self.x, get))


@dataclass(eq=False)
class Pad(Operation):
    """x with a number around it; `before` of each dimension are in front."""

    x: Value
    before: tuple[int, ...]
    number: float = 0.0

    def run(self, get: Get) -> None:
        out, x = get(self.out), get(self.x)
        out.fill_(self.number)
        for dim, (first, size) in enumerate(zip(self.before, x.shape, strict=True)):
            out = out.narrow(dim, first, size)
        out.copy_(x)


@dataclass(eq=False)
class Upsample(Operation):
    """Every pixel of x [B, H x W, C] `factor` times each way, in rows of `width` pixels."""

    x: Value
    size: tuple[int, ...]
    factor: tuple[int, ...]

    def run(self, get: Get) -> None:
        x = get(self.x)
        picture = x.reshape(len(x), *self.size, -1)
        made = picture.repeat_interleave(self.factor[0], 1).repeat_interleave(self.factor[1], 2)
        get(self.out).copy_(made.flatten(1, 2))


@dataclass(eq=False)
class Pool(Operation):
    """The mean or the maximum of windows of pixels of x [B, H x W, C], without padding."""

    x: Value
    size: tuple[int, ...]
    window: tuple[int, ...]
    stride: tuple[int, ...]
    maximum: bool

    def run(self, get: Get) -> None:
        x = get(self.x)
        picture = x.permute(0, 2, 1).reshape(len(x), -1, *self.size)
        pool = F.max_pool2d if self.maximum else F.avg_pool2d
        made = pool(picture, self.window, self.stride)
        get(self.out).copy_(made.flatten(2).permute(0, 2, 1))


@dataclass(eq=False)
class Embedding(Operation):
    """Rows of a table [n, C] by the indices x [B, N]; out [B, N, C]."""

    x: Value
    table: Tensor

    def run(self, get: Get) -> None:
        get(self.out).copy_(F.embedding(get(self.x), self.table))


@dataclass(eq=False)
class Call(Operation):
    """Whatever else: done by torch.

    given  arguments of `function`, in which values stand for tensors
    outs   of several results all that are kept, by place
    """

    function: Callable[..., Any]
    given: list[Any]
    named: dict[str, Any]
    outs: dict[int, Value]

    def values(self) -> Iterator[Value]:
        yield from _values(self.given)
        yield from _values(list(self.named.values()))

    def writes(self) -> Iterator[Value]:
        yield from self.outs.values()

    def run(self, get: Get) -> None:
        def of(given: Any) -> Any:
            if isinstance(given, Value):
                return get(given)
            return type(given)(map(of, given)) if isinstance(given, (list, tuple)) else given

        made = self.function(*map(of, self.given), **{k: of(v) for k, v in self.named.items()})
        results = made if isinstance(made, (list, tuple)) else [made]
        for place, out in self.outs.items():
            get(out).copy_(results[place])

    @property
    def name(self) -> str:
        return f"torch {getattr(self.function, '__name__', self.function)}"
