"""`accelerate`: finds the replacements, compares them, measures, and keeps what is fastest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..executors.capture import first_line
from ..executors.packing import bucket
from ..ops.library import register
from .choose import Candidates, candidates, seconds
from .compare import compared, difference, tensors
from .find import Watch, find
from .form import Form, kept
from .handle import Accelerated, accelerated


def accelerate(module: nn.Module, *args: Any, **kwargs: Any) -> Accelerated:
    """Replaces what has a fused form in a network, in place, and returns the handle.

    module        in eval mode, with its weights in place
    args, kwargs  an example call, of the shapes that matter: it decides which modules are reached,
                  compares each with the original, and is what is timed

    What was the fastest is kept under the user's cache folder, and later calls for as many samples take it.
    On a CPU convolutions keep a packed form of their weights beside them: 1 to 4 times their memory.

    Raises ValueError where the network is in training mode or accelerated already, the example is
    missing, or the fused network as a whole differs from the original; the network is then as before.
    """
    if not (given := list(tensors([args, kwargs]))) or not isinstance(module, nn.Module):
        return accelerate_as(module, None, args, kwargs)  # which says what is wrong
    choices, entries = kept(module, given, given[0].device), bucket(_samples(given[0]))
    known = choices.get(entries)
    handle = accelerate_as(module, known and Form.parsed(known), args, kwargs)
    if handle.times:
        choices.put(entries, str(handle.form))
    return handle


def _samples(x: Tensor) -> int:
    return len(x) if x.ndim else 1


def accelerate_as(
    module: nn.Module, known: Form | None, args: tuple, kwargs: dict[str, Any]
) -> Accelerated:
    """`accelerate` in a form that is known to be the fastest, where the network has it; else the fastest."""
    if objection := _objection(module, args, kwargs):
        raise ValueError(objection)
    register()
    with torch.no_grad():
        watch = Watch()
        with watch.watching(module):
            want = module(*args, **kwargs)
        handle = Accelerated(module, *find(module, watch))
        del watch
        if known is not None:
            known.take(handle.replacements)
        _compare(handle, args, kwargs)
        try:
            _choose(handle, known, want, args, kwargs)
        except BaseException:
            handle.restore()
            raise
    return handle


def _objection(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> str | None:
    """Why a network cannot be accelerated, or None."""
    if accelerated(module) is not None:
        return "the network is accelerated already; restore() it to do so again"
    if not isinstance(module, nn.Module):
        return f"accelerate takes a torch.nn.Module, got {type(module).__name__}"
    if "forward" in vars(module):
        return "the network's forward was replaced by another tool; undo that first"
    inner = [name for name, child in module.named_modules() if accelerated(child) is not None]
    if inner:
        return f"{inner[0]!r} inside the network is accelerated already; restore() that first"
    if module.training:
        return "the network is in training mode; call eval() first"
    if not any(True for _ in tensors([args, kwargs])):
        return (
            "accelerate checks and times the network on an example: give it the arguments of a call, "
            "accelerate(module, x, label)"
        )
    return None


def _compare(handle: Accelerated, args: tuple, kwargs: dict[str, Any]) -> None:
    """Leaves the replacements that agree with the original."""
    with compared(handle.replacements) as found:
        handle.module(*args, **kwargs)
    replacements, handle.replacements = handle.replacements, []
    for replacement in replacements:
        if objection := found.objection(replacement):
            handle.refused[replacement.name] = (replacement.kind, objection)
        else:
            handle.replacements.append(replacement)
            handle.errors[replacement.name] = found.differences[replacement][0]


def _choose(
    handle: Accelerated, known: Form | None, want: Any, args: tuple, kwargs: dict[str, Any]
) -> None:
    """Times the network as it was and with each candidate, and leaves the fastest, or the known one."""
    everything, x = handle.replacements, next(tensors([args, kwargs]))
    handle.batch = _samples(x)
    chosen = None if known is None else known.name

    def call() -> Any:
        return handle.module(*args, **kwargs)

    found = candidates(everything, x.device)
    if chosen == "original":
        found = {}
    elif chosen in found:
        found = {chosen: found[chosen]}
    forms: Candidates = {"original": ([], False)} | _agreeing(handle, found, call, want)

    def prepare(name: str) -> Callable[[], Any]:
        if name != "original":
            handle._install(*forms[name])
        weights = [weight.data for weight, _ in handle._strided]

        def undo(kept: list[Tensor] = weights) -> None:  # by a graph of this form, which reads them
            handle.restore()

        return undo

    if chosen in forms:
        handle.chosen = chosen
    else:
        handle.times = seconds(forms, prepare, call, x.device)
        handle.chosen = min(handle.times, key=lambda name: handle.times[name])
    replacements, channels_last = forms[handle.chosen]
    for replacement in everything:
        if replacement not in replacements:
            handle.refused[replacement.name] = (replacement.kind, "the network is faster without")
    handle._install(replacements, channels_last)


def _agreeing(
    handle: Accelerated, found: Candidates, call: Callable[[], Any], want: Any
) -> Candidates:
    """The candidates whose call returns what the original returned.

    Raises ValueError where there are candidates and none of them does.
    """
    forms: Candidates = {}
    for name, form in found.items():
        try:
            handle._install(*form)
            _agree(call(), want)  # weights are packed and forms chosen in this call
            forms[name] = form
        except Exception as error:  # of the network itself in channels_last, such as of a view
            handle.dropped[name] = first_line(error)
        finally:
            handle.restore()
    if handle.dropped and not forms:
        raise ValueError(
            "; ".join(f"{name}: {reason}" for name, reason in handle.dropped.items())
            + ". The network is as it was before"
        )
    return forms


def _agree(got: Any, want: Any) -> None:
    error, allowed = difference(got, want)
    if not error <= 10 * allowed:
        raise ValueError(
            f"the fused network differs from the original by {error:.1e} of its largest output. Places "
            "agreed one by one, so their order may matter: report the network"
        )
