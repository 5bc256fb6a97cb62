"""The eager executor: every row calls the network and launches the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .. import trace
from ..networks.network import ScoreNetwork
from ..ops.registry import resolve
from .base import Advance, After, Executor, result, walk
from .lru import Lru
from .packing import Packing
from .run import Run
from .space import Space

# Bytes of buffers that wait for the next run. Larger ones take longer to fill than to make.
KEPT = 16 << 20


@dataclass(frozen=True)
class Eager(Executor):
    """Row by row from Python, on any device; small buffers are kept from run to run.

    backend  of the step: "auto", "torch", "cpp", "triton" or "cuda"
    """

    backend: str = "auto"
    _idle: Lru[tuple, tuple[Space, Advance, int]] = field(
        default_factory=lambda: Lru(KEPT), init=False, repr=False, compare=False
    )

    def check(self, device: torch.device) -> None:
        pass  # it runs where torch runs

    def forget(self, network: ScoreNetwork) -> None:
        for key in self._idle:
            if key[0] is network:
                self._idle.take(key)

    def execute(self, run: Run, after: After | None = None) -> tuple[Tensor, list[bool]]:
        key = (run.network, run.signature, trace.active())
        # Buffers that are kept may not become inference tensors.
        with torch.inference_mode(False), torch.no_grad():
            idle = self._idle.take(key)
            if idle is None:
                space = Space(run.signature)
                idle = space, caller(run.network, space, self.backend), space.bytes
            space, advance, size = idle
            space.make_room(run)
            space.load(run)
            walk(run, space, advance, after)
            made = result(run, space)
        self._idle.put(key, idle, size)
        return made


def caller(network: ScoreNetwork, space: Space, backend: str) -> Advance:
    """`advance` of `walk`: the call of exactly a packing's entries, then the step."""
    step = trace.traced("step", resolve("step", backend, space.args))
    called = torch.inference_mode()(network) if network.inference else network
    called = trace.traced("network", called)
    draw = None
    if space.paths is not None:
        draw = trace.traced("brownian", resolve("brownian", backend, space.paths))
    fill = None
    if space.latents is not None:
        drawn = trace.traced("noise", resolve("noise", backend, space.latents.args))
        fill = space.latents.filler(drawn)

    def advance(call: Packing | None) -> None:
        outs: Sequence[Tensor] = ()
        if call is not None and call.count:
            if fill is not None:
                fill(call.count)
            outs = called(*space.entries(call))
        if draw is not None:
            draw()
        step(outs)

    return advance
