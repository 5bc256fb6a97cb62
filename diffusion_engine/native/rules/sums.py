"""Sums over dimensions, and products of tensors that a formula of letters describes."""

from __future__ import annotations

from typing import Any

import torch

from .. import operations as ops
from ..values import Value, channels_last, contiguous
from .elementwise import mapped
from .layers import product
from .rows import floats, many, rows, sequence


def total(low: Any, given: Any, target: Any) -> Any:
    """Over the last dimension, over all pixels, or over any of a sample: a copy where those do not lie
    together."""
    x, dims, mean = given.self, getattr(given, "dim", None), "mean" in target._schema.name
    if not floats(x) or getattr(given, "dtype", None) not in (None, torch.float32):
        return NotImplemented
    n, keep = len(x.shape), bool(getattr(given, "keepdim", False))
    dims = sorted(d % n for d in ([dims] if isinstance(dims, int) else dims or range(n)))
    if len(dims) == n:
        return NotImplemented
    if dims == [n - 1]:
        out = low.new((*x.shape[:-1], 1))
        low.emit(ops.Reduce(sequence(low, out), sequence(low, x), 2, mean))
    elif dims == list(range(2, n)):
        out = _over_pixels(low, x, mean)
    else:
        return _over(low, x, dims, keep, mean)
    return out if keep else out.view(out.meta.squeeze(dims))


def global_pool(low: Any, given: Any, target: Any) -> Any:
    if many(given.output_size, 2) != (1, 1) or not floats(given.self):
        return NotImplemented
    return _over_pixels(low, given.self, True)


def _over_pixels(low: Any, x: Value, mean: bool) -> Value:
    shape = (*x.shape[:2], *(1,) * (len(x.shape) - 2))
    out = Value.new(shape, channels_last(shape))
    low.emit(ops.Reduce(rows(low, out), rows(low, x), 1, mean))
    return out


def _over(low: Any, x: Value, dims: list[int], keep: bool, mean: bool) -> Any:
    n = len(x.shape)
    kept = [d for d in range(n) if d not in dims]
    # The samples first, the others as they lie.
    order = kept[:1] + sorted(kept[1:], key=lambda d: -x.strides[d])
    inner = sorted(dims, key=lambda d: -x.strides[d])
    moved = x.view(x.meta.permute(*order, *inner))
    flat = sequence(low, _merged(low, moved, len(order)))
    shape = [x.shape[d] for d in order]
    sums = Value.new(shape, contiguous(shape))
    low.emit(ops.Reduce(sums.view(sums.meta.view(*flat.shape[:2], 1)), flat, 2, mean))
    back = sums.view(sums.meta.permute([order.index(d) for d in kept]))
    if keep:
        for d in dims:
            back = back.view(back.meta.unsqueeze(d))
    return back


def _merged(low: Any, x: Value, first: int) -> Value:
    """The dimensions from `first` on as one."""
    shape = (*x.shape[:first], -1) if first > 1 else (*x.shape[:first], 1, -1)
    try:
        return x.view(x.meta.view(shape))
    except RuntimeError:
        copy = low.copied(x)
        return copy.view(copy.meta.view(shape))


def vector_norm(low: Any, given: Any, target: Any) -> Any:
    x, dims = given.self, given.dim
    order = getattr(given, "ord", getattr(given, "p", 2))
    if order not in (2, 2.0) or not floats(x) or dims is None:
        return NotImplemented
    dims = sorted(d % len(x.shape) for d in ([dims] if isinstance(dims, int) else dims))
    if 0 in dims:
        return NotImplemented
    squares = mapped(low, ("square", ("input", 0)), [x])
    sums = _over(low, squares, dims, given.keepdim, False)
    return mapped(low, ("sqrt", ("input", 0)), [sums])


def einsum(low: Any, given: Any, target: Any) -> Any:
    """A permutation, or a batched product of two."""
    tensors, text = list(given.tensors), given.equation.replace(" ", "")
    if "->" not in text or "." in text or not all(floats(t) for t in tensors):
        return NotImplemented
    read, out = text.split("->")
    letters = read.split(",")
    if any(len(set(part)) != len(part) for part in (*letters, out)):
        return NotImplemented
    if len(tensors) == 1:
        one = letters[0]
        if set(one) != set(out):
            return NotImplemented
        return tensors[0].view(tensors[0].meta.permute([one.index(c) for c in out]))
    if len(tensors) != 2:
        return NotImplemented
    return _contracted(low, tensors, letters, out)


def _contracted(low: Any, tensors: list[Value], letters: list[str], out: str) -> Any:
    (a, b), (first, second) = tensors, letters
    both = [c for c in first if c in second]
    batch = [c for c in out if c in both]
    inner = [c for c in both if c not in out]
    rows, columns = ([c for c in out if c in part and c not in both] for part in letters)
    if set(first) | set(second) != {*batch, *inner, *rows, *columns} or not inner:
        return NotImplemented
    if first[0] not in batch or second[0] not in batch or batch[0] != out[0]:
        return NotImplemented
    sizes = dict(zip(first + second, (*a.shape, *b.shape), strict=True))
    left = _laid(low, a, first, [batch, rows, inner])
    right = _laid(low, b, second, [batch, inner, columns])
    made = product(low, left, right, 1.0)
    order = [*batch, *rows, *columns]
    whole = made.view(made.meta.view([sizes[c] for c in order]))
    return whole.view(whole.meta.permute([order.index(c) for c in out]))


def _laid(low: Any, value: Value, letters: str, groups: list[list[str]]) -> Value:
    """[samples, heads..., rows, columns] of a tensor, each of them one dimension."""
    order = [letters.index(c) for group in groups for c in group]
    moved = value.meta.permute(order)
    shape, at = [], 0
    for group in groups:
        sizes = moved.shape[at : at + len(group)]
        at += len(group)
        if group is groups[0]:
            shape += [sizes[0], sizes[1:].numel()]
        else:
            shape.append(sizes.numel())
    try:
        return value.view(moved.view(shape))
    except RuntimeError:
        copy = low.copied(value.view(moved))
        return copy.view(copy.meta.view(shape))
