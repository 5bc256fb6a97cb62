"""From a graph of ATen calls to operations: an interpreter whose tensors are values."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from . import rules
from .operations import Call, Copy, Operation
from .values import Value, channels_last, contiguous, flat, shares

NOTHING = {"_assert_tensor_metadata", "_assert_scalar", "sym_constrain_range_for_size"}
SUMS = (
    "linear", "addmm", "mm", "bmm", "matmul", "conv1d", "conv2d", "conv3d", "layer_norm", "group_norm",
    "rms_norm", "softmax", "mean", "sum", "einsum",
)  # fmt: skip
# What torch, rules and kernels' parameters raise of shapes, dtypes and arguments that they do not take.
UNFIT = (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError)
Folded = dict[tuple, tuple[Any, Any]]  # a call of constants -> (these, what it comes to)


class Refused(Exception):
    """Why a network cannot be recorded, as a sentence."""


class Lowering:
    """Walks a graph; what it does is in `operations`.

    graph      of torch.export, functional
    given      what its placeholders stand for: values, or constants
    folded     what constants come to, kept from batch size to batch size
    """

    def __init__(self, graph: fx.Graph, given: Mapping[str, Any], folded: Folded) -> None:
        self.graph, self.given, self.folded = graph, given, folded
        self.operations: list[Operation] = []

    def run(self) -> list[Value]:
        """The outputs."""
        env: dict[fx.Node, Any] = {}
        seen: dict[tuple, Any] = {}
        for node in self.graph.nodes:
            if node.op == "placeholder":
                env[node] = self.given[node.name]
            elif node.op == "get_attr":
                env[node] = self.given[str(node.target)]
            elif node.op == "output":
                outs = fx.map_arg(node.args[0], lambda n: env[n])
                return [self.value(out) for out in flat(outs)]
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: env[n])
                key = _key(node.target, args, kwargs)
                if key not in seen:
                    seen[key] = self.call(node.target, args, kwargs)
                env[node] = seen[key]
        raise Refused("its graph has no output")

    def call(self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What a node comes to: values, or where nothing depends on the input, what torch makes."""
        leaves = flat([*args, *kwargs.values()])
        if not any(isinstance(leaf, Value) for leaf in leaves):
            return self._constant(target, args, kwargs)
        if target is operator.getitem:
            return args[0][args[1]]
        if not isinstance(target, torch._ops.OpOverload):
            raise Refused(f"it calls {target}, which is no operation of torch")
        name = target._schema.name.removeprefix("aten::")
        if name in NOTHING:
            return None
        given = SimpleNamespace(**_named(target, args, kwargs))
        rule = rules.RULES.get(name)
        made = NotImplemented if rule is None else rule(self, given, target)
        return self._fallback(target, args, kwargs) if made is NotImplemented else made

    def _constant(self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """What torch makes of constants, once."""
        key = _key(target, args, kwargs)
        if key not in self.folded:
            if isinstance(target, torch._ops.OpOverload):
                _check(target, _named(target, args, kwargs))
            self.folded[key] = (args, kwargs), _folded(target, args, kwargs)
        return self.folded[key][1]

    def derived(self, way: str, given: Tensor, make: Callable[[Tensor], Any]) -> Any:
        """What is made of a weight, once for all batch sizes."""
        key = way, id(given)
        if key not in self.folded:
            self.folded[key] = given, make(given)
        return self.folded[key][1]

    def emit(self, made: Operation) -> None:
        """Adds an operation, unless what it makes has no elements."""
        if not isinstance(made, Call):
            if not made.out.meta.numel():
                return
            if not all(value.meta.numel() for value in made.values()):
                raise Refused(f"its {made.name} reads a tensor without elements")
        self.operations.append(made)

    def new(
        self, shape: Sequence[int], dtype: torch.dtype = torch.float32, last: bool = False
    ) -> Value:
        """A tensor of its own.

        last  whether the channels, dimension 1, lie together
        """
        return Value.new(shape, channels_last(shape) if last else contiguous(shape), dtype)

    def value(self, given: Value | Tensor) -> Value:
        """A constant too, copied to where values are."""
        if isinstance(given, Value):
            return given
        if not isinstance(given, Tensor):
            raise Refused(f"an output is {type(given).__name__} and no tensor")
        made = self.new(given.shape, given.dtype)
        self.emit(Copy(made, given))
        return made

    def copied(self, given: Value, last: bool = False) -> Value:
        """The same in memory of its own, contiguous, or with the channels together."""
        made = self.new(given.shape, given.dtype, last)
        self.emit(Copy(made, given))
        return made

    def meta(self, target: Any, given: Any) -> Any:
        """What torch says of shapes and strides."""
        args, kwargs = pytree.tree_map(_meta, given)
        return target(*args, **kwargs)

    def viewed(self, target: Any, value: Value, *args: Any, **kwargs: Any) -> Any:
        """A view of a value, or NotImplemented where torch would copy."""
        made = target(value.meta, *args, **kwargs)
        parts = made if isinstance(made, (list, tuple)) else [made]
        if not all(shares(part, value.meta) for part in parts):
            return NotImplemented
        views = [value.view(part) for part in parts]
        return views if isinstance(made, (list, tuple)) else views[0]

    def _fallback(self, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Done by torch, on the values as they lie."""
        _check(target, _named(target, args, kwargs))
        made = self.meta(target, (tuple(args), dict(kwargs)))
        many = isinstance(made, (list, tuple))
        outs = {
            i: self.new(part.shape, part.dtype)
            for i, part in enumerate(made if many else [made])
            if isinstance(part, Tensor)
        }
        if not outs:
            raise Refused(f"{target} returns no tensor")
        first = next(iter(outs.values()))
        self.emit(Call(first, target, list(args), dict(kwargs), outs))
        return [outs.get(i) for i in range(len(made))] if many else first


def _folded(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What a call of constants comes to. The order of torch's sums depends on the number of rows, which
    may be the batch's: in float64 their rounded results do not."""
    summed = isinstance(target, torch._ops.OpOverload) and target._schema.name[6:] in SUMS
    tensors = [leaf for leaf in flat([*args, *kwargs.values()]) if isinstance(leaf, Tensor)]
    if not summed or any(t.dtype != torch.float32 for t in tensors):
        return target(*args, **kwargs)

    def exact(leaf: Any) -> Any:
        return leaf.double() if isinstance(leaf, Tensor) else leaf

    wide, named = pytree.tree_map(exact, (tuple(args), dict(kwargs)))
    return target(*wide, **named).float()


def _check(target: Any, given: Mapping[str, Any]) -> None:
    """Raises Refused on what no recording can repeat."""
    name = target._schema.name.removeprefix("aten::")
    drawn = (
        given.get("dropout_p", given.get("p")) if "dropout" in name or "attention" in name else 1
    )
    if torch.Tag.nondeterministic_seeded in target.tags and drawn:
        raise Refused(f"it draws random numbers ({name})")
    known = name == "index" and not any(
        i.dtype in (torch.bool, torch.uint8) for i in given["indices"] if i is not None
    )
    dependent = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
    if dependent & set(target.tags) and not known:
        raise Refused(f"what it calls depends on the numbers in a tensor ({name})")


def _named(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by their names, as its schema has them."""
    made = {}
    for i, argument in enumerate(target._schema.arguments):
        if i < len(args):
            made[argument.name] = args[i]
        elif argument.name in kwargs:
            made[argument.name] = kwargs[argument.name]
        else:
            made[argument.name] = argument.default_value
    return made


def _key(target: Any, args: Any, kwargs: Any) -> tuple:
    """The same call of the same values is made once."""

    def of(leaf: Any) -> Any:
        if isinstance(leaf, (list, tuple)):
            return tuple(map(of, leaf))
        if isinstance(leaf, Value):
            return "value", id(leaf.buffer), leaf.shape, leaf.strides, leaf.offset
        if isinstance(leaf, Tensor):
            return "tensor", id(leaf)
        return type(leaf).__name__, str(leaf)

    return target, of(list(args)), tuple((k, of(v)) for k, v in sorted(kwargs.items()))


def _meta(leaf: Any) -> Any:
    if isinstance(leaf, Value):
        return leaf.meta
    return leaf.to("meta") if isinstance(leaf, Tensor) else leaf
