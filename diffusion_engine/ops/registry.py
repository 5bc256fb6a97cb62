"""Which implementation of an op serves which arguments. table.py has the choices."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from .. import checks
from .op import Implementation, Op, Operator
from .table import IMPLEMENTATIONS, PREFERENCE


def resolve(op: str, backend: str, args: Any) -> Callable[..., Any]:
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
            return implementation(op, name).bind(args)
        reasons.append(f"{name}: {reason}")
    raise ValueError(f"backend={backend!r} cannot run {op}. " + ". ".join(reasons))


def known(backend: str) -> str:
    """The name of a backend of the step, or "auto". Raises ValueError on another."""
    names = [name for op, name in IMPLEMENTATIONS if op == "step"]
    return checks.one_of("backend", backend, ("auto", *names))


def preference(op: str, device: str) -> tuple[str, ...]:
    """The backends of an op on a kind of device, the preferred one first."""
    return PREFERENCE.get((op, device)) or PREFERENCE.get(("*", device), ("torch",))


def objection(op: str, backend: str, args: Any) -> str | None:
    """Why a backend cannot take these arguments, or None."""
    if (op, backend) not in IMPLEMENTATIONS:
        known = ", ".join(name for o, name in IMPLEMENTATIONS if o == op)
        return f"there is no such implementation of {op}; there are: {known}"
    try:
        found = implementation(op, backend)
    except ImportError as error:
        return f"its module does not load ({error})"
    if backend != "torch" and (reason := _negated(args)):
        return reason
    return found.objection(args)


def _negated(args: Any) -> str | None:
    """The objection of all kernels to a negated view, whose memory has the numbers without their sign."""
    for name, tensor in vars(args).items():
        if isinstance(tensor, torch.Tensor) and tensor.is_neg():
            return f"{name} is a negated view, as the imaginary part of a conjugate is; resolve_neg() it"
    return None


def explain(op: str, device: str | torch.device) -> list[tuple[str, str | None]]:
    """The preference list of a device for an op, by its name: each backend with its objection to small plain
    arguments, None where it has none."""
    device = torch.device(device)
    names = preference(op, device.type)
    try:
        args = definition(op).plain(device)
    except (RuntimeError, AssertionError) as error:
        reason = f"{device} does not work here: {str(error).splitlines()[0]}"
        return [(name, reason) for name in names]
    return [(name, objection(op, name, args)) for name in names]


def operator(op: str, kind: Callable[..., Any], signature: str) -> Operator:
    """The operator of an op whose launch takes nothing.

    kind       its arguments, which the constructor checks
    signature  their schema, in the same order
    """

    def run(*tensors: torch.Tensor) -> None:
        resolve(op, "auto", kind(*tensors))()

    def fake(*tensors: torch.Tensor) -> None:
        kind(*tensors)

    return Operator(f"{op}({signature}) -> ()", run, fake)


def definition(op: str) -> Op[Any]:
    """The op's own file. Raises KeyError where there is no such op."""
    return implementation(op, "torch")  # type: ignore[return-value]


def implementation(op: str, backend: str) -> Implementation[Any]:
    """An entry of the table, imported. Raises KeyError where there is none."""
    module, name = IMPLEMENTATIONS[op, backend].split(":")
    return getattr(import_module(module), name)
