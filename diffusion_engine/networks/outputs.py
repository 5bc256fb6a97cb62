"""What a user's module returns, as the tensors that a step reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def tensors(out: Any) -> tuple[Tensor, ...]:
    """What a module returned, as tensors. Raises ValueError where it is something else."""
    if isinstance(out, Tensor):
        return (out,)
    if isinstance(named := sample(out), Tensor):
        return (named,)
    outs = tuple(out) if isinstance(out, (tuple, list)) else ()
    if not outs or not all(isinstance(part, Tensor) and part.ndim > 1 for part in outs):
        raise ValueError(
            f"the network returned {_kind(out)}; it has to return a tensor [N, C, *pixel], or some whose "
            "channels count on: wrap the module in one that returns that alone"
        )
    return outs


def sample(out: Any) -> Any:
    """The tensor that diffusers' outputs, and mappings, hold under that name; all else as it is."""
    named = out.get("sample") if isinstance(out, Mapping) else getattr(out, "sample", None)
    return named if isinstance(named, Tensor) else out


def _kind(out: Any) -> str:
    """What came, by the types in it."""
    if isinstance(out, Mapping):
        return f"{type(out).__name__} with {', '.join(map(repr, out)) or 'nothing'}"
    if isinstance(out, (tuple, list)):
        parts = [f"{list(p.shape)}" if isinstance(p, Tensor) else type(p).__name__ for p in out]
        return f"a {type(out).__name__} of {', '.join(parts) or 'nothing'}"
    return type(out).__name__
