"""Executors by their names."""

from __future__ import annotations

from collections.abc import Callable

from ..executors import Eager, Executor, Graph
from ..native import Native


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
    kinds: dict[str, Callable[[str], Executor]] = {
        "eager": Eager, "graph": Graph, "native": Native
    }  # fmt: skip
    if given not in kinds:
        raise ValueError(f"executor={given!r}; choose eager, graph or native, or give an Executor")
    return kinds[given](backend)
