"""The native executor: a network's call is a recorded list of operations, replayed on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import checks, trace
from ..executors.base import Executor
from ..executors.batch import Batch, plain
from ..executors.buffers import Buffers, Inputs
from ..executors.capacity import Capacity
from ..executors.lru import Lru
from ..executors.packing import bucket
from ..executors.stages import Stages
from ..networks.network import ScoreNetwork
from ..ops.registry import known

BUDGET = 1 << 30  # bytes of batches, with the memory of their programs, that wait for the next run


class NativeError(ValueError):
    """A network cannot be recorded; its text says why."""


class Native(Executor):
    """Records a network once and replays it, without torch, in float32 on the CPU.

    A sample's bits depend on nothing beside it: not on the size of the call, its place there or the number
    of threads.

    backend  of the step: "auto", "torch" or "cpp"
    threads  that replay; None takes torch.get_num_threads()

    Networks that differentiate in their forward, for a classifier's gradient or an exact derivative, are
    called as the eager executor does.
    """

    invariant = True

    def __init__(self, backend: str = "auto", threads: int | None = None) -> None:
        self.backend = known(backend)
        if threads is not None:
            threads = checks.whole("threads", threads, 1, "at least one thread")
        self.threads = threads
        self._begin()

    def _begin(self) -> None:
        self._recordings: Lru[ScoreNetwork, Any] = Lru(1 << 34)
        self._idle: Lru[tuple, Batch] = Lru(BUDGET)
        self._lock = threading.RLock()
        self._pool: Any = None

    def __reduce__(self) -> tuple:
        """A copy, here or in another process, records anew."""
        return partial(Native, threads=self.threads), (self.backend,)

    def objection(self, device: torch.device) -> str | None:
        if device.type != "cpu":
            return (
                f"the native executor runs on the CPU, not on {device}; use executor='graph' there"
            )
        from ..backends.native import loaded

        try:
            loaded("_cpu")
        except ImportError as error:
            return f"the compiled module _cpu is missing ({error}); use executor='eager'"
        return None

    def forget(self, network: ScoreNetwork) -> None:
        with self._lock:
            self._recordings.take(network)
            for key in self._idle:
                if key[0] is network:
                    self._idle.take(key)

    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        if capacity.state_dtype == torch.float64 or capacity.dtype != torch.float32:
            raise NativeError(
                f"the native executor runs in float32 and this network in {capacity.dtype}; use "
                "executor='eager'"
            )
        with plain():
            return Batch(capacity, partial(Recorded, network, self))

    @contextmanager
    def batch(self, network: ScoreNetwork, capacity: Capacity) -> Iterator[Batch]:
        recording = self._recordings.get(network)
        if recording is not None and not recording.follows():
            self.forget(network)
        key = (network, capacity)
        with plain():
            batch = self._idle.take(key) or self.open(network, capacity)
            if batch.bound_to != trace.active():
                batch.bind()
            yield batch
            batch.clear()
        self._idle.put(key, batch, batch.bytes)

    def recording(self, network: ScoreNetwork, given: Inputs) -> Any:
        """What a network was recorded as, now where it was not. Raises NativeError."""
        from .. import _cpu
        from .lower import Refused
        from .recording import Recording

        with self._lock:
            found = self._recordings.get(network)
            if found is None:
                if self._pool is None:
                    self._pool = _cpu.Pool(self.threads or torch.get_num_threads())
                try:
                    found = Recording(network, given, self._pool)
                except Refused as refused:
                    raise NativeError(_refusal(network, refused)) from refused
                self._recordings.put(network, found, found.weights.bytes)
            return found


def _refusal(network: ScoreNetwork, reason: Exception) -> str:
    return f"the network {network.name!r} cannot be recorded: {reason}. Use executor='eager'"


class Recorded(Stages):
    """Programs of a network on the buffers of one batch, by the number of entries."""

    def __init__(self, network: ScoreNetwork | None, owner: Native, buffers: Buffers) -> None:
        self._owner = owner
        self._programs: dict[int, Any] = {}
        super().__init__(network, buffers, owner.backend)

    @property
    def bytes(self) -> int:  # type: ignore[override]
        return sum(program.bytes for program in list(self._programs.values()))

    def _bind(self, traced: Callable[[str, Any], Any]) -> None:
        super()._bind(traced)
        rule = None if self.network is None else self.network.parameterisation
        if rule is not None and rule.derivative is None and rule.gradient is None:
            self._call = traced("replay", self._replayed)

    def forget(self) -> None:
        self._programs.clear()
        if self.network is not None:
            self._owner.forget(self.network)

    def size(self, count: int) -> int:
        """The bucket of a call: padded entries are computed, and no sample reads them."""
        return min(bucket(super().size(count)), self.buffers.capacity.room) if count else 0

    def _replayed(self, *given: Any) -> Sequence[Tensor]:
        from .lower import Refused
        from .recording import taken_apart

        tensors = taken_apart(given)  # type: ignore[arg-type]
        count = len(tensors[0])
        program = self._programs.get(count)
        if program is None:
            assert self.network is not None
            recording = self._owner.recording(self.network, given)  # type: ignore[arg-type]
            try:
                program = self._programs[count] = recording.program(count)
            except Refused as refused:
                raise NativeError(_refusal(self.network, refused)) from refused
        outs: Sequence[Tensor] = program(tensors)
        return outs
