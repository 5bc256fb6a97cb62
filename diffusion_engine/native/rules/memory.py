"""What moves values, and changes none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..operations import Copy, Pad
from ..values import Value, channels_last, contiguous, same_view

CONSTANT = (
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "empty_like", "new_empty",
)  # fmt: skip


def cat(low: Any, given: Any, target: Any) -> Any:
    """Copies, most of which are made in place later: joined.py."""
    parts = [t for t in given.tensors if t.shape[0] != 0 or len(t.shape) != 1]
    dim = given.dim % len(parts[0].shape)
    if len({t.dtype for t in parts}) > 1:
        return NotImplemented
    shape = list(parts[0].shape)
    shape[dim] = sum(t.shape[dim] for t in parts)
    out, at = Value.new(shape, _strides_like(parts, shape), parts[0].dtype), 0
    for part in parts:
        size = part.shape[dim]
        low.emit(Copy(out.view(out.meta.narrow(dim, at, size)), part))
        at += size
    return out


def _strides_like(parts: list[Any], shape: list[int]) -> tuple[int, ...]:
    """Of memory in which the dimensions follow each other as in the largest part."""
    values = [t for t in parts if isinstance(t, Value) and t.meta.numel() and 0 not in t.strides]
    if not values:
        return contiguous(shape)
    largest = max(values, key=lambda t: t.meta.numel())
    order = sorted(range(len(shape)), key=lambda d: (largest.strides[d], largest.shape[d] > 1, -d))
    strides, step = [0] * len(shape), 1
    for d in order:
        strides[d], step = step, step * shape[d]
    return tuple(strides)


def stack(low: Any, given: Any, target: Any) -> Any:
    tensors, dim = given.tensors, given.dim % (len(given.tensors[0].shape) + 1)
    parts = [
        t.view(t.meta.unsqueeze(dim)) if isinstance(t, Value) else t.unsqueeze(dim) for t in tensors
    ]
    given.tensors, given.dim = parts, dim
    return cat(low, given, target)


def pad(low: Any, given: Any, target: Any) -> Any:
    """A constant around, as torch.nn.functional.pad has it."""
    value, pads = given.self, [int(p) for p in given.pad]
    if value.dtype != torch.float32:
        return NotImplemented
    if getattr(given, "mode", "constant") != "constant":
        return _continued(low, value, pads, given.mode)
    shape, before = list(value.shape), [0] * len(value.shape)
    for i in range(len(pads) // 2):
        dim, first, last = len(shape) - 1 - i, pads[2 * i], pads[2 * i + 1]
        cut = shape[dim] + min(0, first) + min(0, last)  # negative ones take away
        value = value.view(value.meta.narrow(dim, max(0, -first), cut))
        before[dim] = max(0, first)
        shape[dim] += first + last
    if shape == list(value.shape):
        return value
    together = len(shape) == 4 or (len(shape) == 3 and value.strides[1] == 1)
    out = Value.new(shape, channels_last(shape) if together else contiguous(shape))
    low.emit(Pad(out, value, tuple(before), float(given.value or 0.0)))
    return out


def _continued(low: Any, value: Value, pads: list[int], mode: str) -> Any:
    """A few elements of the tensor itself at both ends of each dimension, one copy each."""
    if min(pads) < 0 or sum(pads) > FEW or mode not in PLACES:
        return NotImplemented
    for i in range(len(pads) // 2):
        dim, first, last = len(value.shape) - 1 - i, pads[2 * i], pads[2 * i + 1]
        size, shape = value.shape[dim], list(value.shape)
        shape[dim] += first + last
        together = value.strides[1] == 1 and len(shape) > 2
        out = Value.new(shape, channels_last(shape) if together else contiguous(shape))
        low.emit(Copy(out.view(out.meta.narrow(dim, first, size)), value))
        for at in (*range(first), *range(first + size, shape[dim])):
            source = PLACES[mode](at - first, size)
            one = value.view(value.meta.narrow(dim, source, 1))
            low.emit(Copy(out.view(out.meta.narrow(dim, at, 1)), one))
        value = out
    return value


FEW = 16
PLACES: dict[str, Callable[[int, int], int]] = {
    "reflect": lambda i, n: -i if i < 0 else 2 * (n - 1) - i if i >= n else i,
    "replicate": lambda i, n: min(max(i, 0), n - 1),
    "circular": lambda i, n: i % n,
}


def repeat(low: Any, given: Any, target: Any) -> Any:
    """Copies side by side."""
    value, times = given.self, [int(n) for n in given.repeats]
    shape = [1] * (len(times) - len(value.shape)) + list(value.shape)
    source = value.view(
        value.meta.view(shape)
        if len(shape) == len(value.shape)
        else value.meta[(None,) * (len(shape) - len(value.shape))]
    )
    out = Value.new(
        [n * t for n, t in zip(shape, times, strict=True)],
        contiguous([n * t for n, t in zip(shape, times, strict=True)]),
        value.dtype,
    )
    split = out.meta.view([m for n, t in zip(shape, times, strict=True) for m in (t, n)])
    wide = source.meta
    for i in range(len(shape)):
        wide = wide.unsqueeze(2 * i)
    low.emit(Copy(out.view(split), source.view(wide.expand(split.shape))))
    return out


def constant(low: Any, given: Any, target: Any) -> Tensor:
    """What says how large it is, and never what it holds."""
    named = {
        k: torch.empty(v.shape, dtype=v.dtype) if isinstance(v, Value) else v
        for k, v in vars(given).items()
    }
    made = target(**named)
    return torch.zeros_like(made) if "empty" in target._schema.name else made


def copy(low: Any, given: Any, target: Any) -> Any:
    """What is written into another tensor, in its shape and type."""
    source, into = given.src, given.self
    if source.dtype != into.dtype:
        return NotImplemented
    wide = source.meta if isinstance(source, Value) else source
    wide = wide.expand(into.shape)
    return source.view(wide) if isinstance(source, Value) else wide


def scatter(low: Any, given: Any, target: Any) -> Any:
    """A tensor with a part of it replaced, as in-place changes of parts are written without them."""
    whole, part = given.self, given.src
    if whole.dtype != part.dtype:
        return NotImplemented
    dim = given.dim % len(whole.shape)
    size, step = whole.shape[dim], 1
    if "slice" in target._schema.name:
        start, end, step = slice(given.start, given.end, given.step).indices(size)
    else:
        start = given.index % size
        end, part = start + 1, _unsqueezed(part, dim)
    if (start, end, step) == (0, size, 1):
        return part
    out = Value.new(whole.shape, contiguous(whole.shape), whole.dtype)
    # What is not replaced, in parts beside the other: no element is written twice.
    kept = [slice(0, start), slice(end, size)]
    kept += [slice(start + i, end, step) for i in range(1, step)]
    for cut, source in [*((cut, None) for cut in kept), (slice(start, end, step), part)]:
        index = (slice(None),) * dim + (cut,)
        inside = out.meta[index]
        if 0 not in inside.shape:
            low.emit(
                Copy(out.view(inside), _origin(low, whole, index) if source is None else source)
            )
    return out


def _unsqueezed(given: Value | Tensor, dim: int) -> Value | Tensor:
    return (
        given.view(given.meta.unsqueeze(dim)) if isinstance(given, Value) else given.unsqueeze(dim)
    )


def _origin(low: Any, whole: Value | Tensor, index: tuple[slice, ...]) -> Value | Tensor:
    """A part of a tensor; where a copy has made it, what was copied."""
    if isinstance(whole, Tensor):
        return whole[index]
    part = whole.view(whole.meta[index])
    for made in reversed(low.operations):
        if isinstance(made, Copy) and same_view(made.out, part):
            return made.x
    return part


def repeat_interleave(low: Any, given: Any, target: Any) -> Any:
    """Every entry so many times, one after another."""
    value, times, dim = given.self, given.repeats, given.dim
    if not isinstance(value, Value) or not isinstance(times, int) or dim is None:
        return NotImplemented
    dim %= len(value.shape)
    wide = value.meta.unsqueeze(dim + 1)
    wide = wide.expand(*wide.shape[: dim + 1], times, *wide.shape[dim + 2 :])
    return _laid(low, value.view(wide), dim)


def pixel_shuffle(low: Any, given: Any, target: Any) -> Any:
    """[B, C r r, H, W] as [B, C, H r, W r]."""
    x, r = given.self, given.upscale_factor
    if not isinstance(x, Value) or len(x.shape) != 4:
        return NotImplemented
    parts = x.meta.unflatten(1, (-1, r, r)).permute(0, 1, 4, 2, 5, 3)
    b, c, h, _, w, _ = parts.shape
    shape = (b, c, h * r, w * r)
    out = Value.new(shape, channels_last(shape), x.dtype)
    low.emit(Copy(out.view(out.meta.unflatten(3, (w, r)).unflatten(2, (h, r))), x.view(parts)))
    return out


def pixel_unshuffle(low: Any, given: Any, target: Any) -> Any:
    """[B, C, H r, W r] as [B, C r r, H, W]."""
    x, r = given.self, given.downscale_factor
    if not isinstance(x, Value) or len(x.shape) != 4:
        return NotImplemented
    b, c, h, w = x.shape
    shape = (b, c * r * r, h // r, w // r)
    out = Value.new(shape, channels_last(shape), x.dtype)
    parts = x.meta.unflatten(3, (w // r, r)).unflatten(2, (h // r, r)).permute(0, 1, 3, 5, 2, 4)
    low.emit(Copy(out.view(out.meta.unflatten(1, (c, r, r))), x.view(parts)))
    return out


def _laid(low: Any, wide: Value, dim: int) -> Value:
    """A copy in which dimensions dim and dim + 1 are one."""
    shape = (*wide.shape[:dim], wide.shape[dim] * wide.shape[dim + 1], *wide.shape[dim + 2 :])
    together = len(shape) == 4 and wide.strides[1] == 1
    out = Value.new(shape, channels_last(shape) if together else contiguous(shape), wide.dtype)
    low.emit(Copy(out.view(out.meta.unflatten(dim, wide.shape[dim : dim + 2])), wide))
    return out
