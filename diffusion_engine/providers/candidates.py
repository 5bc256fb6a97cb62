"""Which executors there are to choose among on a device, and within what of the module each has to stay."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ..executors import Eager, Executor, Graph
from ..executors.threads import MEASURED, Given
from ..native import Native, held

# The class in the module of each name, which is the package's that it needs too.
PROVIDERS = {"onnxruntime": "OnnxRuntime", "openvino": "OpenVINO"}
# Of the largest element: what an output may differ by from the module's.
WITHIN = {torch.float32: held.WITHIN, torch.bfloat16: held.HALF_WITHIN}


@dataclass(frozen=True)
class Candidate:
    """An executor that may be chosen.

    dtype     in which it computes a network
    executor  None where there is none here
    reason    why there is none
    """

    name: str
    dtype: torch.dtype
    executor: Executor | None
    reason: str | None = None


def candidates(
    device: torch.device, backend: str, threads: Given, dtype: torch.dtype, fallback: bool
) -> list[Candidate]:
    """All that may run a network on a device, the simplest first; Auto explains the other arguments."""
    if device.type != "cpu":
        return [_candidate(name, device, backend, threads, dtype) for name in ("eager", "graph")]
    kinds = list(dict.fromkeys([torch.float32, dtype] if fallback else [dtype]))
    named = [("eager", torch.float32)] if torch.float32 in kinds else []
    named += [(name, kind) for name in ("native", *PROVIDERS) for kind in kinds]
    return [_candidate(name, device, backend, threads, kind) for name, kind in named]


def _candidate(
    name: str, device: torch.device, backend: str, threads: Given, dtype: torch.dtype
) -> Candidate:
    try:
        made = _made(name, device, backend, threads, dtype)
    except (ValueError, ImportError) as error:
        return Candidate(name, dtype, None, said(error))
    if objection := made.objection(device):
        return Candidate(name, dtype, None, objection)
    return Candidate(name, dtype, made)


def _made(
    name: str, device: torch.device, backend: str, threads: Given, dtype: torch.dtype
) -> Executor:
    if name == "graph":
        return Graph(backend)
    if name == "eager":
        return Eager(backend, MEASURED if threads is None and device.type == "cpu" else threads)
    how: dict[str, Any] = {} if dtype == torch.float32 else {"dtype": dtype}
    if name == "native":
        return Native(backend, threads, **how)
    module = importlib.import_module(f".{name}", __package__)
    made: Executor = getattr(module, PROVIDERS[name])(backend, threads, **how)
    return made


def installed() -> Iterator[str]:
    """The packages of providers that are here, with their versions."""
    for name in PROVIDERS:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def said(error: Exception) -> str:
    """An error in a line."""
    return " ".join(str(error).split()) or type(error).__name__
