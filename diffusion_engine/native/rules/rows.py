"""Tensors as operations see them: rows of channels."""

from __future__ import annotations

from typing import Any

import torch

from ..values import Value


def rows(low: Any, value: Value) -> Value:
    """A picture or signal [B, C, *pixel] as [B, N, C], whose channels lie together, or else a copy."""
    made = _as_rows(value)
    if made is None:
        made = _as_rows(low.copied(value, last=True))
        assert made is not None
    return made


def _as_rows(value: Value) -> Value | None:
    if value.strides[1] != 1 and value.shape[1] > 1:
        return None
    moved = value.meta.movedim(1, -1)
    try:
        return value.view(moved.view(value.shape[0], -1, value.shape[1]))
    except RuntimeError:
        return None


def sequence(low: Any, value: Value) -> Value:
    """A sequence [B, ..., C] as [B, N, C], whose features lie together; a copy where they do not."""
    shape = (value.shape[0] if len(value.shape) > 1 else 1, -1, value.shape[-1])
    if value.strides[-1] == 1 or value.shape[-1] == 1:
        try:
            return value.view(value.meta.view(shape))
        except RuntimeError:
            pass
    copy = low.copied(value)
    return copy.view(copy.meta.view(shape))


def floats(*values: Any) -> bool:
    return all(isinstance(v, Value) and v.dtype == torch.float32 for v in values)


def layer(x: Any, *constants: Any) -> bool:
    """Whether a layer reads a value in float32, and its weights are constants."""
    return floats(x) and not any(isinstance(given, Value) for given in constants)


def many(given: Any, count: int) -> tuple[int, ...]:
    """A number for each dimension."""
    numbers = [given] if isinstance(given, int) else list(given)
    return tuple(numbers * count if len(numbers) == 1 else numbers)


def pair(given: Any, spatial: int, fill: int) -> tuple[int, ...]:
    """A number for each dimension of a picture; a signal is one of a single line, whose number is `fill`."""
    return (fill,) * (2 - spatial) + many(given, spatial)
