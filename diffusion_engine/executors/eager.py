"""The eager executor: every stage is called from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from .. import trace
from ..networks.network import ScoreNetwork
from ..ops.registry import known
from .base import Executor
from .batch import Batch, plain
from .buffers import Buffers
from .capacity import Capacity
from .lru import Lru
from .stages import Stages
from .threads import Given, Threads, checked

# Bytes of buffers that wait for the next run. Larger ones take longer to fill than to make.
KEPT = 16 << 20


@dataclass(frozen=True)
class Eager(Executor):
    """Row by row from Python, on any device; small batches are kept from run to run.

    backend  of the step: "auto", "torch", "cpp", "triton" or "cuda"
    threads  of the CPU that run a call and its step: a number; a mapping of the entries of a call to one; or
             "measured", which tries 1, powers of two and torch.get_num_threads() in calls of the size that
             runs, and keeps what is fastest under the user's cache folder. None leaves torch's number alone
    """

    backend: str = "auto"
    threads: Given = field(default=None, hash=False)
    _idle: Lru[tuple, Batch] = field(
        default_factory=lambda: Lru(KEPT), init=False, repr=False, compare=False
    )
    _threads: Threads | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known(self.backend)
        if (given := checked(self.threads)) is not None:
            object.__setattr__(self, "_threads", Threads(given))

    def objection(self, device: torch.device) -> str | None:
        if self._threads is not None and device.type != "cpu":
            return (
                f"threads={self.threads!r} are of the CPU, and the network runs on {device}; leave "
                "threads out"
            )
        return None  # it runs where torch runs

    def threads_of(self, network: ScoreNetwork) -> int | dict[str, int] | None:
        return None if self._threads is None else self._threads.named(network)

    def calling(self, network: ScoreNetwork) -> Callable[..., Sequence[Tensor]]:
        return super().calling(network) if self._threads is None else self._threads.calling(network)

    def forget(self, network: ScoreNetwork) -> None:
        for key in self._idle:
            if key[0] is network:
                self._idle.take(key)

    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        with plain():
            return Batch(capacity, partial(OnThreads, network, self._threads, backend=self.backend))

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


class OnThreads(Stages):
    """The stages of a batch, each a call from Python, on a number of threads where one is said."""

    def __init__(
        self, network: ScoreNetwork | None, threads: Threads | None, buffers: Buffers, backend: str
    ) -> None:
        self._threads = threads
        super().__init__(network, buffers, backend)

    @property
    def calling(self) -> Callable[..., Sequence[Tensor]] | None:
        if self._threads is None or self.network is None:
            return super().calling
        return self._threads.calling(self.network)

    def __call__(self, count: int, most: int) -> None:
        if self._threads is None or self.network is None or not count:
            super().__call__(count, most)
            return
        with self._threads.on(self.network, self.buffers.inputs(self.size(count))):
            self.step(super().call(count))

    def call(self, count: int) -> Sequence[Tensor]:
        if self._threads is None or self.network is None or not count:
            return super().call(count)
        with self._threads.on(self.network, self.buffers.inputs(self.size(count))):
            return super().call(count)
