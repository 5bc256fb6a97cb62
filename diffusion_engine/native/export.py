"""A module's graph as torch.export makes it, functional."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from threading import RLock
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..networks.contents import Contents
from .lower import Refused

_tracing: Any = RLock()  # torch.export has state of the process
if hasattr(os, "register_at_fork"):  # a thread that had it is not in the child
    os.register_at_fork(after_in_child=_tracing._at_fork_reinit)


class Exported:
    """A graph in which no tensor changes, without what torch.export knows of its tensors: megabytes.

    inputs     names of its placeholders for the call's tensors
    constants  what its other placeholders and attributes are
    """

    def __init__(self, program: Any) -> None:
        self.graph: fx.Graph = program.graph
        self.inputs: list[str] = []
        self.constants: dict[str, Any] = {}
        for spec in program.graph_signature.input_specs:
            if spec.kind.name == "USER_INPUT":
                self.inputs.append(spec.arg.name)
            else:
                self.constants[spec.arg.name] = _constant(program, spec.target)
        self._sizes = sizes(program)
        for node in self.graph.nodes:
            if node.op == "get_attr":
                name = str(node.target)
                self.constants[name] = getattr(program.graph_module, name)
            node.meta.clear()

    def takes(self, batch: int) -> bool:
        """Whether it is the graph of a batch of that size."""
        return self._sizes[0] <= batch <= self._sizes[1]


def exported(module: nn.Module, inputs: Sequence[Tensor], dynamic: bool) -> Exported:
    """The graph of a call; `dynamic`: of any number of entries. Raises Refused."""
    return Exported(traced(module, inputs, dynamic))


@contextmanager
def tracing() -> Iterator[None]:
    """To be held by who uses torch.export, or works on its programs: one thread at a time."""
    with _tracing, _as_it_is(), torch.no_grad():
        yield


def traced(module: nn.Module, inputs: Sequence[Tensor], dynamic: bool) -> Any:
    """What torch.export makes of a call, without operations that change a tensor. Raises Refused."""
    shapes = ([{0: torch.export.Dim.AUTO} for _ in inputs],) if dynamic else None
    try:
        with tracing():
            program = torch.export.export(
                module, (list(inputs),), dynamic_shapes=shapes, strict=False
            )
            if any(_changes(node) for node in program.graph.nodes):
                program = program.run_decompositions({})
    except Exception as error:
        raise Refused(_reason(error, dynamic)) from error
    signature = program.graph_signature
    for kind, changed in (
        ("buffer", signature.buffers_to_mutate),
        ("parameter", getattr(signature, "parameters_to_mutate", {})),
        ("input", signature.user_inputs_to_mutate),
    ):
        for name in changed.values():
            raise Refused(f"its forward changes the {kind} {name!r}")
    return program


def structure(module: Any) -> Any:
    """A copy of a module over the same weights: while torch.export traces it, its parameters are others, and
    threads that call the module itself shall not see them."""
    if not isinstance(module, nn.Module):
        return module
    try:
        return copy.deepcopy(module, {id(t): t for t in Contents.of(module).tensors()})
    except Exception as error:
        raise Refused(
            f"a copy of the module, over its weights, cannot be made ({error})"
        ) from error


@contextmanager
def _as_it_is() -> Iterator[None]:
    """torch.export turns oneDNN off for the process while it traces, and other threads' convolutions would
    have other bits meanwhile; the graph is the same without."""
    from torch.export import _trace

    name = "_ignore_backend_decomps"
    before = getattr(_trace, name, None)
    if before is None:
        yield
        return
    setattr(_trace, name, nullcontext)
    try:
        yield
    finally:
        setattr(_trace, name, before)


def _changes(node: Any) -> bool:
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _constant(program: Any, target: str) -> Any:
    state = program.state_dict
    return state[target] if target in state else program.constants[target]


def sizes(program: Any) -> tuple[float, float]:
    """The least and the largest batch that a program takes; one where torch found that it looks at it."""
    given = program.graph_signature.user_inputs
    found = [_sizes(program, node) for node in program.graph.nodes if node.name in given]
    return max(low for low, _ in found), min(high for _, high in found)


def _sizes(program: Any, node: Any) -> tuple[float, float]:
    """Of one input."""
    size = node.meta["val"].shape[0]
    if isinstance(size, int) or size.node.expr.is_number:
        return int(size), int(size)
    found = program.range_constraints.get(size.node.expr)
    if found is None:
        return 1, float("inf")
    # torch calls every size that is not 1 at least 2; what depends on it shows when the graph is read.
    low = 1 if found.lower <= 2 < found.upper else int(found.lower)
    return low, float(found.upper) if found.upper.is_finite else float("inf")


def _reason(error: Exception, dynamic: bool) -> str:
    text = str(error)
    # Where the batch is a number, only what a tensor holds makes sizes that are not.
    unknown = "SymInt" in text and not dynamic
    if unknown or "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return "what it calls depends on the numbers in a tensor"
    said = text.strip().splitlines()
    return f"torch.export cannot take it: {said[0] if said else repr(error)}"
