"""Launches of ops that a layer calls with new tensors each time.

The launch that was resolved for tensors of a kind is kept, and serves any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .. import trace
from .registry import resolve

KEPT = 4096  # launches; a network on one shape needs as many as it has kinds of layers

_launches: dict[tuple, Callable[[Sequence[Tensor | None]], Tensor | None]] = {}


def _forget() -> None:
    """Launches are bound with or without their ranges. One that a thread is binding meanwhile goes with
    the old mapping."""
    global _launches
    _launches = {}


trace.watch(_forget)


def call(
    op: str, backend: str, tensors: Sequence[Tensor | None], options: tuple, make: Callable[[], Any]
) -> Tensor | None:
    """What a launch on the tensors returns; `make` gives the op's arguments where none is kept."""
    launches = _launches
    key = (op, backend, options, *map(_kind, tensors))
    launch = launches.get(key)
    if launch is None:
        if len(launches) >= KEPT:
            launches.clear()
        launch = launches[key] = trace.traced(op, resolve(op, backend, make()))
    return launch(tensors)


def _kind(tensor: Tensor | None) -> tuple | None:
    """What a launch depends on; kernels on a GPU load 16 bytes where the address allows."""
    if tensor is None:
        return None
    aligned = tensor.data_ptr() % 16 == 0
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, aligned, tensor.is_neg()
