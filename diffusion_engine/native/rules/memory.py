"""What moves values, and changes none."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..operations import Copy, Pad
from ..values import Value, channels_last, contiguous

CONSTANT = (
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "empty_like", "new_empty",
)  # fmt: skip


def cat(low: Any, given: Any, target: Any) -> Any:
    """Copies, most of which are made in place later: memory.py."""
    parts = [t for t in given.tensors if t.shape[0] != 0 or len(t.shape) != 1]
    dim = given.dim % len(parts[0].shape)
    if len({t.dtype for t in parts}) > 1:
        return NotImplemented
    shape = list(parts[0].shape)
    shape[dim] = sum(t.shape[dim] for t in parts)
    last = len(shape) >= 3 and any(
        isinstance(t, Value) and t.strides[1] == 1 and t.strides[-1] != 1 for t in parts
    )
    strides = channels_last(shape) if last or len(shape) == 4 else contiguous(shape)
    out, at = Value.new(shape, strides, parts[0].dtype), 0
    for part in parts:
        size = part.shape[dim]
        low.emit(Copy(out.view(out.meta.narrow(dim, at, size)), part))
        at += size
    return out


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
    if getattr(given, "mode", "constant") != "constant" or value.dtype != torch.float32:
        return NotImplemented
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
