"""Rows of channels for the kernels of recorded networks, with strides of their own, and their memory."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion_engine.backends import native

KEPT = 7.0  # what memory between the rows must still hold


def cpu():
    return native.module("_cpu")


def strided(*shape: int, fill: float = float("nan"), gap: int = 0) -> Tensor:
    """[B, rows, C] in memory with `gap` further channels, which hold KEPT."""
    whole = torch.full((*shape[:-1], shape[-1] + gap), KEPT)
    part = whole[..., gap // 2 : gap // 2 + shape[-1]]
    return part.fill_(fill)


def placed(x: Tensor, gap: int = 0) -> Tensor:
    """A copy of x in such memory."""
    return strided(*x.shape, fill=0.0, gap=gap).copy_(x)


def rows(x: Tensor) -> tuple[int, int, int]:
    """What a field of Rows takes of [B, rows, C]."""
    return (x.data_ptr(), x.stride(0), x.stride(1))


def neighbours_kept(x: Tensor) -> bool:
    """Whether the memory between the rows of a tensor of `strided` is as it was."""
    whole = x._base if x._base is not None else x
    return bool((whole == KEPT).sum() == whole.numel() - x.numel())


def fill(params, **fields):
    for name, value in fields.items():
        setattr(params, name, value)
    return params
