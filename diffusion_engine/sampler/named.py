"""Executors by their names."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from .. import checks
from ..backends import machine
from ..executors import Eager, Executor, Graph
from ..native import Native

NAMES = ("eager", "graph", "native", "onnxruntime", "openvino", "auto")
BOTH = (torch.float32, torch.bfloat16)
# Those that compute a float32 network by themselves, on the CPU, and in what; classes of providers.
COMPUTING = {"native": BOTH, "onnxruntime": BOTH[:1], "openvino": BOTH, "auto": BOTH}
PROVIDERS = {"onnxruntime": "OnnxRuntime", "openvino": "OpenVINO"}
WITHOUT = "a graph's network runs on the GPU, whatever threads the CPU has: leave threads out"


def executor(
    given: str | Executor,
    backend: str = "auto",
    threads: Any = None,
    dtype: torch.dtype | None = None,
    fallback: bool = False,
) -> Executor:
    """An executor by its name, one of NAMES, or the object itself.

    given     the name or the object
    backend   of the step: "auto", "torch", "cpp", "triton" or "cuda"
    threads   of the CPU that run the network, as in Sampler
    dtype     in which the network is to be computed; None for float32, or that of its input
    fallback  whether a network that differs by more in it than it may is computed in float32

    Raises ValueError where it cannot compute in the dtype, or the processor would emulate that.
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
    if given == "eager":
        return Eager(backend, threads=threads)
    if given == "graph":
        if threads is not None:
            raise ValueError(f"threads={threads!r}: {WITHOUT}")
        return Graph(backend)
    if not isinstance(given, str) or given not in NAMES:
        raise ValueError(
            f"executor={given!r}; choose {', '.join(NAMES[:-1])} or {NAMES[-1]}, or give an Executor"
            f"{checks.nearest([str(given).lower()], NAMES)}"
        )
    return _computing(given, backend, threads, dtype or torch.float32, fallback)


def _computing(
    name: str, backend: str, threads: Any, dtype: torch.dtype, fallback: bool
) -> Executor:
    """One that computes float32 networks in a dtype of its own."""
    if dtype not in COMPUTING[name]:
        runs = " or ".join(str(each).removeprefix("torch.") for each in COMPUTING[name])
        raise ValueError(
            f"executor={name!r} runs in {runs}, and this network in {dtype}: say dtype=torch.float32, or use "
            "executor='eager'"
        )
    if dtype == torch.bfloat16 and not machine.bf16().kind:
        raise ValueError(machine.emulated(f"executor={name!r} in {dtype}"))
    how: dict[str, Any] = {"threads": threads}
    if dtype != torch.float32:
        how |= {"dtype": dtype, "fallback": fallback}
    if name == "native":
        return Native(backend, **how)
    module = importlib.import_module(f"..providers.{name}", __package__)
    made: Executor = getattr(module, PROVIDERS.get(name, "Auto"))(backend, **how)
    return made
