"""The stages of a batch as captured steps: network, step, next input and label are one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from .. import trace
from ..networks.compiled import Compiled
from ..networks.contents import Contents
from ..networks.network import ScoreNetwork
from ..networks.wrapper import unwrapped
from .buffers import Buffers
from .capacity import Capacity
from .capture import Body, Recording
from .packing import bucket
from .stages import Stages


class Written:
    """What steps write, as it was: to begin there again and again, and to compare where they came to.

    vary  gives the work other inputs than those it began with
    """

    def __init__(self, buffers: Buffers, vary: Callable[[], None]) -> None:
        a = buffers.step
        listed = (a.slots, a.row, a.net_in, a.label, a.end_label, a.status, a.denoised, a.seed)
        self._tensors = [t for t in listed if t is not None]
        self._before = [t.clone() for t in self._tensors]
        self._vary = vary

    def restore(self, vary: bool = False) -> None:
        for tensor, before in zip(self._tensors, self._before, strict=True):
            tensor.copy_(before)
        if vary:
            self._vary()

    def now(self) -> list[Tensor]:
        """Copies, as bytes."""
        return [t.contiguous().view(torch.uint8).clone() for t in self._tensors]


class Capturer(Protocol):
    """Captures for batches, with the memory of all of them in view: executors.Graph."""

    backend: str

    def capture(self, stages: Replays, body: Body, written: Written) -> Recording:
        """Records the work and holds it against the work itself. Raises GraphError with the reason."""

    def count(self, stages: Replays) -> None:
        """Counts what was captured."""


class Replays(Stages):
    """Graphs of a network on the buffers of one batch.

    steps  a step by the number of entries of the network's batch; it serves every solver, step count,
           guidance scale and seed, because those are data
    runs   all rows of a run, by the packings of its calls
    eager  whether steps are called from Python now, as a graph of a whole run records them
    """

    network: ScoreNetwork
    recorded = True

    def __init__(self, network: ScoreNetwork, buffers: Buffers, capturer: Capturer) -> None:
        self._capturer = capturer
        self.weights = weights_of(network)
        self.contents: Contents | None = None  # of the module when it was captured last
        self.steps: dict[int, Recording] = {}
        self.runs: dict[tuple, Recording] = {}
        self.eager = False
        super().__init__(network, buffers, capturer.backend)

    def bind(self) -> None:
        """Binds the replay inside its range; within a graph no stage is seen by itself."""
        self._bind(lambda name, call: call)
        self._replay = trace.traced("replay", self._row)

    @property
    def key(self) -> tuple[ScoreNetwork, Capacity]:
        return self.network, self.buffers.capacity

    @property
    def bytes(self) -> int:  # type: ignore[override]
        return sum(graph.bytes for graph in (*self.steps.values(), *self.runs.values()))

    def forget(self) -> None:
        self.weights, self.contents = weights_of(self.network), None
        self.steps.clear()
        self.runs.clear()

    def outdated(self) -> bool:
        """Whether the module computes something else now, its weights being where they were."""
        changed = self.contents is not None and not self.contents.same()
        return changed and self.weights == weights_of(self.network)

    def __call__(self, count: int, most: int) -> None:
        """A row from its graph. Rows without a call, as row 0, are launched alone."""
        if self.eager:
            super().__call__(self.size(count), most)
            return
        size = self.size(count)
        if count and size not in self.steps:
            # The largest first: the others fit into its memory. One that is smaller than the call, as where
            # who had entries of it has left, could not be held against the step: it would read beyond.
            sizes = {size, self.size(max(count, most))}
            for entries in sorted(sizes - self.steps.keys(), reverse=True):
                body = partial(super().__call__, entries, most)
                written = Written(self.buffers, self._vary)
                self.steps[entries] = self._capturer.capture(self, body, written)
                self.captured += 1
                self._capturer.count(self)
        self._replay(size)

    def _row(self, size: int) -> None:
        if size:
            self.steps[size].replay()
        else:
            self.step(())

    def size(self, count: int) -> int:
        """The bucket of a call: padded entries are computed, and no sample reads them."""
        return min(bucket(super().size(count)), self.buffers.capacity.room) if count else 0

    def _vary(self) -> None:
        """Other inputs than those of the capture: of the other sign, at another time."""
        step = self.buffers.step
        assert step.net_in is not None and step.label is not None
        step.net_in.mul_(-0.5)
        for told, value in zip((step.label, step.end_label), self.buffers.rows.labels, strict=True):
            if told is not None:
                told.fill_(value)


def contents_of(network: ScoreNetwork) -> Contents | None:
    """What the user's module is made of: a change of it is one that a graph does not see."""
    module = unwrapped(network.module, Compiled)
    return Contents.of(module) if isinstance(module, nn.Module) else None


def weights_of(network: ScoreNetwork) -> tuple[int, ...]:
    """What a captured network depends on beside its input: where the weights lie, and training mode."""
    module = network.module
    if not isinstance(module, nn.Module):
        return ()
    tensors = (*module.parameters(), *module.buffers())
    return (sum(m.training for m in module.modules()), *(t.data_ptr() for t in tensors))
