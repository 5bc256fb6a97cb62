"""Which implementation of an op serves which arguments. table.py has the choices.

An implementation "module:bind_x" may have a companion `objection_x(args) -> str | None` in the same
module: the sentence why it cannot take these arguments. The torch references have none.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from . import layout
from .attention import AttentionArgs
from .brownian import BrownianArgs
from .conv3x3 import Conv3x3Args, pack
from .group_norm import GroupNormArgs
from .noise import NoiseArgs
from .step import StepArgs, Table
from .table import IMPLEMENTATIONS, PREFERENCE

Args = StepArgs | NoiseArgs | BrownianArgs | GroupNormArgs | AttentionArgs | Conv3x3Args


def resolve(op: str, backend: str, args: Args) -> Callable[..., Any]:
    """The launch of an op, bound to its arguments.

    backend  "auto" for the first of the device's preference list without an objection, or the name
             of one, which then has to serve
    Raises ValueError with the reasons where none can.
    """
    device = next(t.device.type for t in vars(args).values() if isinstance(t, torch.Tensor))
    reasons = []
    for name in preference(op, device) if backend == "auto" else (backend,):
        reason = objection(op, name, args)
        if reason is None:
            return _function(op, name)(args)
        reasons.append(f"{name}: {reason}")
    raise ValueError(f"backend={backend!r} cannot run {op}. " + ". ".join(reasons))


def preference(op: str, device: str) -> tuple[str, ...]:
    """The backends of an op on a kind of device, the preferred one first."""
    return PREFERENCE.get((op, device)) or PREFERENCE.get(("*", device), ("torch",))


def objection(op: str, backend: str, args: Args) -> str | None:
    """Why a backend cannot take these arguments, or None."""
    if (op, backend) not in IMPLEMENTATIONS:
        known = ", ".join(name for o, name in IMPLEMENTATIONS if o == op)
        return f"there is no such implementation of {op}; there are: {known}"
    try:
        _function(op, backend)
        object_to = _companion(op, backend)
    except ImportError as error:
        return f"its module does not load ({error})"
    if backend != "torch" and (reason := _negated(args)):
        return reason
    return None if object_to is None else object_to(args)


def _negated(args: Args) -> str | None:
    """The objection of all kernels to a negated view, whose memory has the numbers without their sign."""
    for name, tensor in vars(args).items():
        if isinstance(tensor, torch.Tensor) and tensor.is_neg():
            return f"{name} is a negated view, as the imaginary part of a conjugate is; resolve_neg() it"
    return None


def explain(op: str, device: str | torch.device) -> list[tuple[str, str | None]]:
    """The preference list of a device for an op, each with the objection to small plain arguments."""
    device = torch.device(device)
    names = preference(op, device.type)
    try:
        args = _plain(op, device)
    except (RuntimeError, AssertionError) as error:
        reason = f"{device} does not work here: {str(error).splitlines()[0]}"
        return [(name, reason) for name in names]
    return [(name, objection(op, name, args)) for name in names]


def _function(op: str, backend: str) -> Callable[..., Any]:
    module, name = IMPLEMENTATIONS[op, backend].split(":")
    return getattr(import_module(module), name)


def _companion(op: str, backend: str) -> Callable[[Any], str | None] | None:
    module, name = IMPLEMENTATIONS[op, backend].split(":")
    return getattr(import_module(module), name.replace("bind_", "objection_", 1), None)


def _plain(op: str, device: torch.device) -> Args:
    state, seed = (
        torch.zeros(1, 1, 2, 2, device=device),
        torch.zeros(1, dtype=torch.int64, device=device),
    )
    if op == "noise":
        return NoiseArgs(state, seed)
    if op == "group_norm":
        return GroupNormArgs(state, torch.empty_like(state))
    if op == "attention":
        kind = torch.bfloat16 if device.type == "cuda" else torch.float32  # as networks there are
        q, k, v, out = torch.zeros(4, 1, 1, 8, 8, device=device, dtype=kind)
        return AttentionArgs(q, k, v, out)
    if op == "conv3x3":
        weight = torch.zeros(1, 1, 3, 3, device=device)
        return Conv3x3Args(state, weight, pack(weight, 2), None, None, torch.empty_like(state))
    table = Table(
        torch.zeros(1, layout.COEF, device=device),
        torch.zeros(1, layout.INDEX, dtype=torch.int32, device=device),
        torch.zeros(1, dtype=torch.float64, device=device),
    )
    row = torch.full((1,), -1, dtype=torch.int32, device=device)
    if op == "brownian":
        weight = torch.zeros(1, 1, layout.TERMS, device=device)
        terms = torch.zeros(1, 1, layout.HEADER + layout.TERMS, dtype=torch.int32, device=device)
        return BrownianArgs(state[None], seed, row, terms, weight)
    return StepArgs(state[None], row, seed, table)
