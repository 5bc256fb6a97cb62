"""The ops of networks as functions of tensors: `group_norm`, `add_group_norm`, `attention` and `conv3x3`.

A layer calls them with new tensors each time, so the launch that was resolved for tensors of this
kind is kept, and serves any thread. Under torch.compile they are one node each (library.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import trace
from .attention import AttentionArgs
from .conv3x3 import Conv3x3Args
from .group_norm import GroupNormArgs
from .registry import resolve

KEPT = 4096  # launches; a network on one shape needs as many as it has kinds of layers

_launches: dict[tuple, Callable[[Sequence[Tensor | None]], Tensor | None]] = {}


def _forget() -> None:
    """Launches are bound with or without their ranges. One that a thread is binding meanwhile goes with
    the old mapping."""
    global _launches
    _launches = {}


trace.watch(_forget)


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5, *,
    silu: bool = False, scale: Tensor | None = None, shift: Tensor | None = None,
    residual: Tensor | None = None, out: Tensor | None = None, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """silu(GroupNorm(x + residual) (1 + scale) + shift); shapes and equation in ops/group_norm.py.

    The result is `out`, or else new and dense, in the memory format and dtype of x. There is no
    derivative.
    Raises ValueError or TypeError on arguments that do not go together.
    """
    out = torch.empty_like(x) if out is None else out
    _run_group_norm(
        (x, out, weight, bias, scale, shift, residual, None), groups, eps, silu, backend
    )
    return out


def add_group_norm(
    x: Tensor, residual: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, *, silu: bool = False, scale: Tensor | None = None, shift: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(group_norm of x + residual, x + residual): a residual stream and its next layer's input."""
    out, summed = torch.empty_like(x), torch.empty_like(x)
    tensors = (x, out, weight, bias, scale, shift, residual, summed)
    _run_group_norm(tensors, groups, eps, silu, backend)
    return out, summed


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, *, backend: str = "auto"
) -> Tensor:
    """softmax(q k^T scale) v; shapes and equation in ops/attention.py.

    The result [B, H, N, D] lies in memory as [B, N, H, D], which is what the layer after it reads.
    There is no derivative. Raises ValueError or TypeError on arguments that do not go together.
    """
    batch, heads, queries, dim = q.shape
    out = q.new_empty(batch, queries, heads, dim).transpose(1, 2)
    tensors = (q, k, v, out)
    make = partial(AttentionArgs, *tensors, scale)
    made = _run("attention", backend, tensors, (scale,), make)
    return out if made is None else made


def conv3x3(
    x: Tensor, weight: Tensor, packed: Tensor, bias: Tensor | None = None,
    residual: Tensor | None = None, *, backend: str = "auto",
) -> Tensor:  # fmt: skip
    """conv2d(x, weight, bias, padding=1) + residual; shapes and equation in ops/conv3x3.py.

    packed  ops.conv3x3.pack(weight, tile): the tile decides the bits of the result

    The result is new and dense, in the memory format of x. There is no derivative.
    Raises ValueError or TypeError on arguments that do not go together.
    """
    out = like(x, weight.shape[0])
    tensors = (x, weight, packed, bias, residual, out)
    _run("conv3x3", backend, tensors, (), partial(Conv3x3Args, *tensors))
    return out


def like(x: Tensor, channels: int) -> Tensor:
    """An uninitialised [B, channels, H, W] in the memory format of x."""
    last = x.ndim == 4 and x.stride(1) == 1
    form = torch.channels_last if last else torch.contiguous_format
    shape = (*x.shape[:1], channels, *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)


def _run_group_norm(
    tensors: tuple[Tensor | None, ...], groups: int, eps: float, silu: bool, backend: str
) -> None:
    make = partial(GroupNormArgs, *tensors, groups, eps, silu)  # type: ignore[arg-type, call-arg]
    _run("group_norm", backend, tensors, (groups, eps, silu), make)


def _kind(tensor: Tensor | None) -> tuple | None:
    """What a launch depends on; kernels on a GPU load 16 bytes where the address allows."""
    if tensor is None:
        return None
    aligned = tensor.data_ptr() % 16 == 0
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, aligned, tensor.is_neg()


def _run(
    op: str, backend: str, tensors: Sequence[Tensor | None], options: tuple, make: Callable[[], Any]
) -> Tensor | None:
    """What the launch returns."""
    launches = _launches
    key = (op, backend, options, *map(_kind, tensors))
    launch = launches.get(key)
    if launch is None:
        if len(launches) >= KEPT:
            launches.clear()
        launch = launches[key] = trace.traced(op, resolve(op, backend, make()))
    return launch(tensors)
