"""Compares each replacement with the original forward on the example's own inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..executors.capture import first_line
from .replacement import Replacement

LIMIT = 1e-4  # of a float32 result, relative to its largest element
HALF_UNITS = 4  # of a 16-bit result, in units of its rounding


def limit(dtype: torch.dtype) -> float:
    """The difference from the original that a result may have, relative to its largest element."""
    return max(LIMIT, HALF_UNITS * torch.finfo(dtype).eps) if dtype.itemsize < 4 else LIMIT


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in nested tuples, lists, mappings and dataclass-like outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def difference(got: Any, want: Any) -> tuple[float, float]:
    """(the largest difference relative to the largest element, what it may be) of two results."""
    pairs = list(zip(tensors(got), tensors(want), strict=True))
    worst, allowed = 0.0, LIMIT
    for a, b in pairs:
        if a.shape != b.shape or a.dtype != b.dtype:
            return float("inf"), allowed
        if b.is_floating_point() and b.numel():
            finite = b[b.isfinite()].abs()
            size = float(finite.max()) if finite.numel() else 0.0
            apart = (a.double() - b.double()).abs()
            apart[(a == b) | (a.isnan() & b.isnan())] = 0.0
            error = float(apart.max())
            if math.isnan(error):
                return float("inf"), allowed
            worst = max(worst, error / size if size else error)
            allowed = max(allowed, limit(b.dtype))
    return worst, allowed


def copied(value: Any) -> Any:
    """Arguments of its own for a second call, where the first may work in place."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    return value


class Compared:
    """What a call of the network showed of its replacements.

    differences  (the difference from the original, what it may be) of the worst call
    failures     the error of a fused form
    """

    def __init__(self) -> None:
        self.differences: dict[Replacement, tuple[float, float]] = {}
        self.failures: dict[Replacement, Exception] = {}

    def objection(self, replacement: Replacement) -> str | None:
        """Why the replacement is not to be used, or None."""
        if replacement in self.failures:
            error = self.failures[replacement]
            return (
                f"its fused form fails on the example: {type(error).__name__}: {first_line(error)}"
            )
        if replacement not in self.differences:
            return "only places around it call it"
        apart, allowed = self.differences[replacement]
        if apart <= allowed:
            return None
        return f"differs from the original by {apart:.1e} of its largest element"


@contextmanager
def compared(replacements: Iterable[Replacement]) -> Iterator[Compared]:
    """A call of the network, while this is entered, runs every replacement beside its original, whose
    result goes on."""
    found = Compared()

    def probe(replacement: Replacement) -> Any:
        def both(*args: Any, **kwargs: Any) -> Any:
            again = [copied(arg) for arg in args], {k: copied(v) for k, v in kwargs.items()}
            want = replacement.original(*args, **kwargs)
            try:
                now = difference(
                    replacement.forward(*again[0], **again[1]), replacement.expected(want)
                )
                before = found.differences.get(replacement, (0.0, 0.0))
                found.differences[replacement] = max(before, now)
            except Exception as error:  # whatever it is, the original has none
                found.failures[replacement] = error
            return want

        return both

    replacements = list(replacements)
    for replacement in replacements:
        replacement.module.forward = probe(replacement)  # type: ignore[method-assign]
    try:
        yield found
    finally:
        for replacement in replacements:
            replacement.remove()
