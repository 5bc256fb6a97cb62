"""Views: shapes and strides change, and nothing is done when the network runs."""

from __future__ import annotations

from typing import Any

import torch

from ..operations import Copy
from ..values import Value, channels_last, shares
from .elementwise import READ, mapped

NAMES = (
    "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "expand_as", "slice", "select", "narrow",
    "chunk", "split", "split_with_sizes", "unbind", "movedim", "swapaxes", "unflatten", "view_as",
    "tensor_split", "numpy_T", "mT", "diagonal", "broadcast_to", "view_as_complex", "view_as_real",
)  # fmt: skip
# What leaves values as they are: memory formats are ours.
SAME = ("contiguous", "clone", "alias", "detach", "lift_fresh_copy", "dropout", "feature_dropout")


def view(low: Any, given: Any, target: Any) -> Any:
    named = vars(given)
    first = next(iter(named))
    value = named.pop(first)
    if not isinstance(value, Value):  # a constant, in the shape of another
        shapes = {k: torch.empty(v.shape) if isinstance(v, Value) else v for k, v in named.items()}
        return target(value, **shapes)
    named = {k: v.meta if isinstance(v, Value) else v for k, v in named.items()}
    return low.viewed(target, value, **named)


def same(low: Any, given: Any, target: Any) -> Any:
    if getattr(given, "train", False):
        return NotImplemented
    return next(iter(vars(given).values()))


def to(low: Any, given: Any, target: Any) -> Any:
    """Another dtype: a copy, unless it has it."""
    value = given.self
    wanted = getattr(given, "dtype", None)
    if hasattr(given, "other"):
        wanted = given.other.dtype
    if wanted is None or wanted == value.dtype:
        return value
    if wanted != torch.float32 or value.dtype not in (torch.float64, *READ):
        return NotImplemented
    return mapped(low, ("input", 0), [value])


def reshape(low: Any, given: Any, target: Any) -> Any:
    """A view where torch has one, or a copy, whose channels lie together if it is a picture."""
    value = given.self
    if not hasattr(given, "shape") and not hasattr(
        given, "size"
    ):  # another dtype of the same bytes
        return NotImplemented
    shape = [int(n) for n in (given.shape if hasattr(given, "shape") else given.size)]
    made = value.meta.reshape(shape)
    if shares(made, value.meta):
        return value.view(made)
    return relaid(low, value, tuple(made.shape))


def flatten(low: Any, given: Any, target: Any) -> Any:
    made = given.self.meta.flatten(given.start_dim, given.end_dim)
    if shares(made, given.self.meta):
        return given.self.view(made)
    return relaid(low, given.self, tuple(made.shape))


def relaid(low: Any, value: Value, shape: tuple[int, ...]) -> Value:
    """The elements of a value in their order, in memory of another shape."""
    if len(shape) == 4:
        made = Value.new(shape, channels_last(shape), value.dtype)
        try:
            as_given = made.meta.view(value.shape)
        except RuntimeError:
            as_given = None
        if as_given is not None:
            low.emit(Copy(made.view(as_given), value))
            return made
    copy = low.copied(value)
    return copy.view(copy.meta.view(shape))


def sym_size(low: Any, given: Any, target: Any) -> Any:
    dim = getattr(given, "dim", None)
    return list(given.self.shape) if dim is None else given.self.shape[dim]
