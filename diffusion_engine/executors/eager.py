"""The eager executor: every row calls the network and launches the step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .. import trace
from ..ops.registry import resolve
from .base import Advance, After, Executor, result, walk
from .packing import Packing
from .run import Run
from .space import Space


@dataclass(frozen=True)
class Eager(Executor):
    """Row by row from Python, on any device; buffers are made once a run.

    backend  of the step: "auto", "torch", "cpp", "triton" or "cuda"
    """

    backend: str = "auto"

    def check(self, device: torch.device) -> None:
        pass  # it runs where torch runs

    def execute(self, run: Run, after: After | None = None) -> tuple[Tensor, list[bool]]:
        with torch.no_grad():
            space = Space(run.signature)
            space.load(run)
            walk(run, space, caller(run, space, self.backend), after)
            return result(run, space)


def caller(run: Run, space: Space, backend: str) -> Advance:
    """`advance` of `walk`: the call of exactly a packing's entries, then the step."""
    step = trace.traced("step", resolve("step", backend, space.args))
    network = trace.traced("network", run.network)

    def advance(call: Packing | None) -> None:
        step(() if call is None else network(*space.entries(call)))

    return advance
