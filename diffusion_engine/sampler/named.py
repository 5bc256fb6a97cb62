"""Executors by their names."""

from __future__ import annotations

from typing import Any

from ..executors import Eager, Executor, Graph
from ..native import Native

WITHOUT = "a graph's network runs on the GPU, whatever threads the CPU has: leave threads out"


def executor(given: str | Executor, backend: str = "auto", threads: Any = None) -> Executor:
    """An executor by its name, "eager", "graph" or "native", or the object itself.

    given    the name or the object
    backend  of the step: "auto", "torch", "cpp", "triton" or "cuda"
    threads  of the CPU that run the network, as in Sampler
    """
    if isinstance(given, Executor):
        asked = {"backend": (backend, "auto"), "threads": (threads, None)}
        for name, (value, default) in asked.items():
            if value != default:
                raise ValueError(
                    f"{name}={value!r} goes with an executor's name; give it to the executor: "
                    f"{type(given).__name__}({name}={value!r})"
                )
        return given
    if given == "graph":
        if threads is not None:
            raise ValueError(f"threads={threads!r}: {WITHOUT}")
        return Graph(backend)
    kinds: dict[str, Any] = {"eager": Eager, "native": Native}
    if given not in kinds:
        raise ValueError(f"executor={given!r}; choose eager, graph or native, or give an Executor")
    made: Executor = kinds[given](backend, threads=threads)
    return made
