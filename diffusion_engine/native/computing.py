"""`Computing`: executors that compute float32 networks on the CPU by what they made of them once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from .. import trace
from ..executors.base import Executor
from ..executors.batch import Batch, plain
from ..executors.capacity import Capacity
from ..executors.lru import Lru
from ..executors.threads import checked, written
from ..networks.network import ScoreNetwork
from ..ops.registry import known
from .locks import Locks
from .stages import differentiates

BUDGET = 1 << 30  # bytes of batches, with the memory of their calls, that wait for the next run
WEIGHTS = 1 << 34  # bytes of weights that are kept beside the networks' own


class Made(Protocol):
    """What was made of a network, for calls of one kind."""

    @property
    def bytes(self) -> int:
        """Of its weights."""

    @property
    def threads(self) -> dict[int, int]:
        """That run a call, by the number of entries."""


M = TypeVar("M", bound=Made)


class Computing(Executor, Generic[M]):
    """Keeps what is made of networks, and batches.

    who      as sentences call it
    backend  of the step: "auto", "torch" or "cpp"
    threads  that run a call, as in `Native`
    """

    def __init__(
        self, who: str, backend: str, threads: int | Mapping[int, int] | str | None
    ) -> None:
        self.backend = known(backend)
        if backend not in ("auto", "torch", "cpp"):
            raise ValueError(f"backend={backend!r}: {who} steps by 'auto', 'torch' or 'cpp'")
        given = checked(threads)
        self.threads = None if isinstance(given, str) else given  # "measured", as without
        self._made: Lru[tuple, M] = Lru(WEIGHTS)
        self._idle: Lru[tuple, Batch] = Lru(BUDGET)
        self._locks = Locks()

    @contextmanager
    def batch(self, network: ScoreNetwork, capacity: Capacity) -> Iterator[Batch]:
        key = (network, capacity)
        with plain():
            batch = self._idle.take(key) or self.open(network, capacity)
            batch.stages.renew()
            if batch.bound_to != trace.active():
                batch.bind()
            yield batch
            batch.clear()
        self._idle.put(key, batch, batch.bytes)

    def forget(self, network: ScoreNetwork) -> None:
        for kept in (self._made, self._idle):
            for key in kept:
                if key[0] is network:
                    kept.take(key)  # type: ignore[attr-defined]

    def threads_of(self, network: ScoreNetwork) -> int | dict[str, int] | None:
        if isinstance(self.threads, int) and not differentiates(network):
            return self.threads
        threads: dict[int, int] = {}
        if isinstance(self.threads, Mapping) and not differentiates(network):
            threads.update(self.threads)
        for one in self.made(network):
            threads.update(one.threads)
        return written(threads)

    def packed(self, network: ScoreNetwork) -> int:
        return sum(one.bytes for one in self.made(network))

    def made(self, network: ScoreNetwork) -> list[M]:
        """What was made of a network so far."""
        found = [self._made.get(key) for key in self._made if key[0] is network]
        return [one for one in found if one is not None]

    def _weighed(self, one: M) -> None:
        """What was made has other weights now."""
        for key in self._made:
            if self._made.get(key) is one:
                self._made.put(key, one, one.bytes)
