"""The fused ops as a replacement calls them, and which tensors they take."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..ops import functional
from ..ops.attention import DIMS, DTYPES


def op(name: str) -> Callable[..., Tensor]:
    """The function of `ops.functional` with this name; under torch.compile it is one node of the graph."""
    return getattr(
        torch.ops.diffusion_engine if torch.compiler.is_compiling() else functional, name
    )


def settings(norm: nn.GroupNorm) -> tuple[int, Tensor | None, Tensor | None, float]:
    """The groups, weight, bias and eps of a GroupNorm, as `group_norm` takes them after x."""
    return norm.num_groups, norm.weight, norm.bias, norm.eps


def group_norm_takes(x: Tensor) -> bool:
    """Whether `group_norm` takes x."""
    return x.dtype in DTYPES and x.ndim >= 2 and x.numel() > 0


def attention_takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `attention` takes q, k and v."""
    if (
        q.ndim != 4
        or k.shape != v.shape
        or q.shape[:2] != k.shape[:2]
        or q.shape[3:] != k.shape[3:]
    ):
        return False
    known = q.dtype in DTYPES and q.dtype == k.dtype == v.dtype
    return known and objection_to_heads(q.shape[3]) is None and q.numel() > 0 and k.numel() > 0


def objection_to_heads(dim: int) -> str | None:
    """Why `attention` does not take heads of so many elements, or None."""
    low, high = DIMS
    return None if low <= dim <= high else f"its heads have {dim} elements, not {low} to {high}"
