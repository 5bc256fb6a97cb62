"""Batches of seats, and the executors that bind their stages: `Eager` calls them, `Graph` replays a captured
step."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from .base import Executor
from .batch import Batch
from .capacity import Capacity
from .capture import GraphError
from .eager import Eager
from .graph import Graph
from .job import Job
from .rows import BatchFull

__all__ = [
    "Batch", "BatchFull", "Capacity", "Eager", "Executor", "Graph", "GraphError", "Job", "executor",
]  # fmt: skip


def executor(given: str | Executor, backend: str = "auto") -> Executor:
    """An executor by its name, "eager", "graph" or "native", or the object itself.

    given    the name or the object
    backend  of the step: "auto", "torch", "cpp", "triton" or "cuda"
    """
    if isinstance(given, Executor):
        if backend != "auto":
            raise ValueError(
                f"backend={backend!r} goes with an executor's name; give it to the executor: "
                f"{type(given).__name__}({backend!r})"
            )
        return given
    native = import_module("..native", __name__)  # which stands on this package
    kinds: dict[str, Callable[[str], Executor]] = {
        "eager": Eager, "graph": Graph, "native": native.Native
    }  # fmt: skip
    if given not in kinds:
        raise ValueError(f"executor={given!r}; choose eager, graph or native, or give an Executor")
    return kinds[given](backend)
