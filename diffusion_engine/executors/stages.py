"""What a step does, in order, bound once: draw a path or a latent, call the network, step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import trace
from ..networks.network import ScoreNetwork
from ..ops.registry import resolve
from .buffers import Buffers
from .guiding import Guiding


class Stages:
    """The stages of a batch, each a call from Python. Objects belong to their batch.

    network  None where the caller makes the outputs
    backend  of the ops: "auto", "torch", "cpp", "triton" or "cuda"
    """

    bytes = 0  # of what was recorded
    captured = 0  # calls that were recorded so far
    recorded = False  # whether what the device does may be recorded, and done again

    def __init__(self, network: ScoreNetwork | None, buffers: Buffers, backend: str) -> None:
        self.network, self.buffers = network, buffers
        paths, latents = buffers.paths, buffers.latents
        self._launch = resolve("step", backend, buffers.step)
        self._draw = None if paths is None else resolve("brownian", backend, paths)
        self._noise = None if latents is None else resolve("noise", backend, latents.args)
        self._guide = self._guiding(backend)
        self.bind()

    def bind(self) -> None:
        """Binds the stages inside their ranges, for whoever listens now (trace.py)."""
        self._bind(trace.traced)

    def _bind(self, traced: Callable[[str, Any], Any]) -> None:
        network, latents = self.network, self.buffers.latents
        self._call = self._fill = None
        if network is not None:
            self._call = traced("network", as_called(network))
        if latents is not None:
            self._fill = latents.filler(traced("noise", self._noise))
        self.step = traced("step", self._launch)
        if self._guide is not None:
            self.step = _both(traced("guide", self._guide), self.step)
        if self._draw is not None:
            draw = traced("brownian", self._draw)
            self.step = _both(lambda outs: draw(), self.step)

    def _guiding(self, backend: str) -> Guiding | None:
        """What guides rows by numbers of each sample, where the capacity has that."""
        buffers, capacity = self.buffers, self.buffers.capacity
        if buffers.guides is None:
            return None
        own = (buffers.step, buffers.guides, len(buffers.guides) - capacity.seats)
        return Guiding(*own, capacity.guiders, backend, resolve)

    def forget(self) -> None:
        """Drops what was recorded: weights of the network lie elsewhere now."""

    def renew(self) -> None:
        """Has the next call look at the module, where something else than its weights may have changed."""

    @property
    def calling(self) -> Callable[..., Sequence[Tensor]] | None:
        """The network as a function, for who makes other calls than the batch's."""
        return self.network

    def fill(self, count: int) -> None:
        """Draws the latents of a call of so many entries."""
        if self._fill is not None:
            self._fill(count)

    def __call__(self, count: int, most: int) -> None:
        """A row of every seat: the call of `count` entries, where there are any, and the step.

        most  entries of the largest call that those who sit here may make
        """
        self.step(self.call(count))

    def call(self, count: int) -> Sequence[Tensor]:
        """The outputs of the network's call of `count` entries; none where there are no entries."""
        if not count:
            return ()
        if self._call is None:
            raise ValueError(
                f"a call of {count} entries is due and this batch has no network: give step(outs=...), what "
                "it returns for inputs()"
            )
        count = self.size(count)
        self.fill(count)
        made: Sequence[Tensor] = self._call(*self.buffers.inputs(count))
        return made

    def size(self, count: int) -> int:
        """Entries that a call of `count` is made with."""
        capacity = self.buffers.capacity
        return capacity.room if capacity.fixed and count else count


def _both(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., None]:
    """Two things that are done with the outputs of a call."""

    def both(outs: Sequence[Tensor] = ()) -> None:
        first(outs)
        second(outs)

    return both


def as_called(network: ScoreNetwork) -> Callable[..., Sequence[Tensor]]:
    """The network as stages call it."""
    return torch.inference_mode()(network) if network.inference else network
