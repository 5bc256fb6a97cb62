"""The eager executor: every stage is called from Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch

from .. import trace
from ..networks.network import ScoreNetwork
from ..ops.registry import known
from .base import Executor
from .batch import Batch, plain
from .capacity import Capacity
from .lru import Lru
from .stages import Stages

# Bytes of buffers that wait for the next run. Larger ones take longer to fill than to make.
KEPT = 16 << 20


@dataclass(frozen=True)
class Eager(Executor):
    """Row by row from Python, on any device; small batches are kept from run to run.

    backend  of the step: "auto", "torch", "cpp", "triton" or "cuda"
    """

    backend: str = "auto"
    _idle: Lru[tuple, Batch] = field(
        default_factory=lambda: Lru(KEPT), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        known(self.backend)

    def objection(self, device: torch.device) -> str | None:
        return None  # it runs where torch runs

    def forget(self, network: ScoreNetwork) -> None:
        for key in self._idle:
            if key[0] is network:
                self._idle.take(key)

    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        with plain():
            return Batch(capacity, partial(Stages, network, backend=self.backend))

    @contextmanager
    def batch(self, network: ScoreNetwork, capacity: Capacity) -> Iterator[Batch]:
        key = (network, capacity)
        with plain():
            batch = self._idle.take(key) or self.open(network, capacity)
            if batch.bound_to != trace.active():
                batch.bind()
            yield batch
            batch.clear()
        self._idle.put(key, batch, batch.bytes)
