"""The executor that measures the others on a network, and hands it to the fastest of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import checks
from ..backends import machine
from ..choices import Kept, structure
from ..executors import Batch, Capacity, Eager, Executor
from ..executors.base import After
from ..executors.buffers import Inputs
from ..executors.packing import bucket
from ..executors.threads import checked, written
from ..networks.network import ScoreNetwork
from ..ops.registry import known
from .candidates import Candidate, candidates, installed
from .choice import Choice
from .chosen import Chosen, kind, nobody
from .measure import Enter, measured
from .trial import capacity_of

DTYPES = (torch.float32, torch.bfloat16)


class Auto(Executor):
    """Measures what is installed in the first run of a network, in batches of its size, and is the fastest of
    them from then on: on a CPU the eager executor, the native one, ONNX Runtime and OpenVINO, each on the
    threads that are its fastest; on a GPU the eager executor and graphs.

    backend   of the step: "auto", "torch", "cpp", "triton" or "cuda"
    threads   of the CPU that run the network: a number, or a mapping of the entries of a call to one. None
              has each candidate measure its own
    dtype     torch.float32, or torch.bfloat16 for those candidates that compute a float32 network in it
    fallback  whether those in float32 are candidates beside them

    A candidate has to come within 1e-4 of the module, of the largest element of an output; in bfloat16 within
    2e-2. Of those whose times are within 3 % the simplest is kept: eager before native before the others.
    The choice is kept under the user's cache folder, by processor, structure of the network, kind of inputs,
    size of a call, versions and installed packages, and later processes take it over. It stays where weights
    change. Where the one that was kept cannot make calls of another size, the next takes the network;
    `sampler.choice` says all of it.
    """

    invariant = True  # `exact` says of which networks

    def __init__(
        self,
        backend: str = "auto",
        threads: int | Mapping[int, int] | str | None = None,
        dtype: torch.dtype = torch.float32,
        fallback: bool = False,
    ) -> None:
        self.backend, self.threads = known(backend), checked(threads)
        self.dtype = checks.one_of("dtype", dtype, DTYPES)
        self.fallback = checks.flag("fallback", fallback)
        self.precision = None if dtype == torch.float32 else dtype
        self._known: dict[str, Choice] = {}  # by the structure of a network
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._candidates: dict[torch.device, list[Candidate]] = {}
        self._chosen: WeakKeyDictionary[ScoreNetwork, Chosen] = WeakKeyDictionary()

    def __getstate__(self) -> dict[str, Any]:
        """A copy, here or in another process, has the choices."""
        with self._lock:
            own = {
                k: v for k, v in vars(self).items() if k not in ("_lock", "_candidates", "_chosen")
            }
            return own | {"_known": dict(self._known)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._renew()

    def objection(self, device: torch.device) -> str | None:
        if device.type != "cpu" and (objection := Eager(threads=self.threads).objection(device)):
            return objection
        among = self._among(device)
        if any(one.executor is not None for one in among):
            return None
        return nobody(f"networks in {self.dtype}", ((one.name, one.reason) for one in among))

    def choice(self, network: ScoreNetwork) -> Choice | None:
        """What was measured of a network, and which executor was kept; None before its first run."""
        found = self._chosen.get(network)
        return None if found is None else found.choice

    def runs(self, network: ScoreNetwork) -> Executor:
        found = self._chosen.get(network)
        return self if found is None else found.executor

    def captures(self, device: torch.device) -> bool:
        return device.type != "cpu"

    def ready(self, network: ScoreNetwork, capacity: Capacity) -> None:
        self._settled(network, capacity, _opened)

    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        if network is None:  # nothing is called, and the step has the same bits everywhere
            return Eager(self.backend).open(None, capacity)
        return self._settled(network, capacity, _opened).open(network, capacity)

    def batch(self, network: ScoreNetwork, capacity: Capacity) -> AbstractContextManager[Batch]:
        return self._settled(network, capacity, _kept).batch(network, capacity)

    def finish(self, batch: Batch, after: After | None = None) -> None:
        network = batch.stages.network
        found = None if network is None else self._chosen.get(network)
        if found is None:
            super().finish(batch, after)
        else:
            found.executor.finish(batch, after)

    def calling(self, network: ScoreNetwork) -> Callable[..., Sequence[Tensor]]:
        if (found := self._chosen.get(network)) is not None:
            return found.executor.calling(network)
        calls: list[Callable[..., Sequence[Tensor]]] = []

        def call(*given: Any) -> Sequence[Tensor]:
            if not calls:
                calls.append(self._for(network, given).calling(network))  # type: ignore[arg-type]
            return calls[0](*given)

        return call

    def exact(self, network: ScoreNetwork, given: Inputs) -> bool:
        return self._for(network, given).exact(network, given)

    def form(self, network: ScoreNetwork) -> str | None:
        found = self._chosen.get(network)
        return None if found is None else found.executor.form(network)

    def dtype_of(self, network: ScoreNetwork) -> torch.dtype | None:
        found = self._chosen.get(network)
        return self.precision if found is None or self.precision is None else found.candidate.dtype

    def packed(self, network: ScoreNetwork) -> int:
        found = self._chosen.get(network)
        return 0 if found is None else found.executor.packed(network)

    def threads_of(self, network: ScoreNetwork) -> int | dict[str, int] | None:
        found = self._chosen.get(network)
        return None if found is None else found.executor.threads_of(network)

    def forget(self, network: ScoreNetwork) -> None:
        with self._lock:
            found = self._chosen.pop(network, None)
        if found is not None:
            found.executor.forget(network)

    def _for(self, network: ScoreNetwork, given: Inputs) -> Executor:
        """What was chosen for a network; of calls like the given one, where nothing was yet."""
        found = self._chosen.get(network)
        if found is not None:
            return found.executor
        return self._settled(network, capacity_of(network, given), _opened)

    def _settled(self, network: ScoreNetwork, capacity: Capacity, enter: Enter) -> Executor:
        """What runs a network in batches of a capacity, chosen now where it was not. Raises AutoError."""
        found = self._chosen.get(network)
        if found is None or not found.same() or not found.met(capacity):
            with self._lock:  # one measures, and the others wait for what it finds
                before = found = self._chosen.get(network)
                if found is None or not found.same():
                    found = self._choose(network, capacity, enter)
                if not found.met(capacity):
                    found.meet(network, capacity, enter)
                if before is not None and before.executor is not found.executor:
                    before.executor.forget(network)
                self._known[found.name], self._chosen[network] = found.choice, found
        return found.executor

    def _choose(self, network: ScoreNetwork, capacity: Capacity, enter: Enter) -> Chosen:
        """The choice for a network's structure: known, kept on disk, or measured now."""
        among, entries = self._among(capacity.device), capacity.room
        kept = Kept("executors", self._about(network, capacity), _is_record)
        name = kept.path.name
        before = self._known.get(name)
        before = before or Choice.of(kept.get(bucket(entries)), network.name, entries)
        if before is not None and before.stands(
            [(one.name, one.executor is not None) for one in among]
        ):
            return Chosen(network, name, before, among)
        found = Chosen(network, name, measured(network, capacity, among, enter), among)
        if found.choice.kept.ms is not None:
            kept.put(bucket(entries), found.choice.record())
        found.meets(capacity)
        return found

    def _among(self, device: torch.device) -> list[Candidate]:
        with self._lock:
            if device not in self._candidates:
                own = (self.backend, self.threads, self.dtype, self.fallback)
                self._candidates[device] = candidates(device, *own)
            return self._candidates[device]

    def _about(self, network: ScoreNetwork, capacity: Capacity) -> list[Any]:
        """What a choice holds for, beside the machine and the size of calls."""
        gpu = capacity.device.type == "cuda"
        where = torch.cuda.get_device_name(capacity.device) if gpu else capacity.device.type
        own = [self.backend, written(self.threads), self.dtype, self.fallback]  # type: ignore[arg-type]
        return [
            *map(str, own),
            structure(network.module),
            *map(str, kind(capacity)[:-1]),
            where,
            machine.bf16().kind,
            *installed(),
        ]


def _is_record(value: Any) -> bool:
    return Choice.of(value, "", 1) is not None


def _kept(
    executor: Executor, network: ScoreNetwork, capacity: Capacity
) -> AbstractContextManager[Batch]:
    return executor.batch(network, capacity)


def _opened(
    executor: Executor, network: ScoreNetwork, capacity: Capacity
) -> AbstractContextManager[Batch]:
    return nullcontext(executor.open(network, capacity))
