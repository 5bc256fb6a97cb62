"""`Engine`: a queue in front of batches, on a thread of its own."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from .. import checks
from ..executors import Executor
from ..networks.decoder import Decoder
from ..networks.network import ScoreNetwork
from ..sampler.request import ASKED
from ..sampler.spec import Spec
from .errors import EngineClosed, EngineError, QueueFull
from .given import mapping, spec_of
from .handle import Handle
from .loop import Loop
from .probe import Probe
from .served import Served
from .ticket import Ticket

QUEUE = 1024
BYTES = 8 << 30
AGING = 10.0


class Engine:
    """Continuous batching: requests of any solvers, step counts, guidance, seeds and conditions share one
    batch, join and leave between rows, and each gets the bits that it would get alone.

    networks    a ScoreNetwork, or several by name
    capacity    samples of one batch
    device, dtype, backend, accelerate, executor, threads, compile, decoder  of every network, as in Sampler
    batch       "bucket": a call has as many entries as are due (in CUDA graphs the next of their sizes),
                which changes as neighbours come and go; where bits depend on that, recipes say each call's
                size and place. "fixed": every call has one size, one whose places were found to agree, so
                that a sample depends on its network, recipe, seed and that size alone
    probe       whether a network is called in batches of copies before samples share one: to know which sizes
                of calls give the same bits, and to refuse one that mixes samples. It takes four to six calls
                of each size, at the size's first use
    max_queue   requests that wait or run at a time
    adapters    {network: {name: deltas}}, or {name: deltas} of one network without a name; see add_adapter
    max_bytes   that copies of weights, where the engine runs others than yours, and batches may take: batches
                in use stay, and what was not used for longest goes first
    aging       seconds without a seat, or a batch's without a turn, that raise a priority by one
    clock       seconds that never go back

    A context manager; its thread starts with the first request. `submit` may be called from any thread, and
    handles awaited in any loop. Raises ValueError where an argument makes no sense.
    """

    def __init__(
        self,
        networks: ScoreNetwork | Mapping[str, ScoreNetwork],
        capacity: int = 16,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        backend: str = "auto",
        accelerate: bool = False,
        executor: str | Executor = "eager",
        threads: int | Mapping[int, int] | str | None = None,
        compile: bool = False,
        decoder: Decoder | str | None = "network",
        batch: str = "bucket",
        probe: bool = True,
        adapters: Mapping[str, Any] | None = None,
        max_queue: int = QUEUE,
        max_bytes: int = BYTES,
        aging: float = AGING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        named = networks if isinstance(networks, Mapping) else {"": networks}
        if not named or not all(isinstance(n, ScoreNetwork) for n in named.values()):
            raise ValueError(
                f"networks={checks.said(networks)}: give a ScoreNetwork, or a mapping of names to some"
            )
        self.capacity = checks.whole("capacity", capacity, 1, "at least 1 sample a batch")
        self.max_queue = checks.whole("max_queue", max_queue, 1, "at least 1 request")
        max_bytes = checks.whole("max_bytes", max_bytes, 0, "bytes for networks and batches")
        checks.one_of("batch", batch, ("bucket", "fixed"))
        how = {
            "device": device, "dtype": dtype, "backend": backend, "accelerate": accelerate,
            "executor": executor, "threads": threads, "compile": compile, "decoder": decoder,
            "batch_size": self.capacity,
        }  # fmt: skip
        probing = checks.flag("probe", probe)
        self._served = {
            name: Served(name, network, self.capacity, batch == "fixed", how, probing)
            for name, network in named.items()
        }
        wanted = "seconds, more than 0"
        if (aging := checks.number("aging", aging, wanted)) <= 0:
            raise ValueError(f"aging={aging:g}: {wanted}")
        loop = self._loop = Loop(tuple(self._served.values()), max_bytes, aging, clock)
        # Of an engine that was not closed the thread ends when what it took is done; where none started, the
        # networks are let go of.
        weakref.finalize(self, loop.let_go).atexit = False
        given = mapping("adapters", adapters or {})
        for of, deltas in ({"": given} if named is not networks else given).items():
            for adapter, delta in mapping(f"adapters[{of!r}]", deltas).items():
                self.add_adapter(adapter, delta, of)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        self.close(drain=kind is None)

    def submit(
        self,
        spec: Spec | str | Mapping[str, Any],
        n: int | None = None,
        *,
        network: str | None = None,
        adapter: str | None = None,
        priority: float = 0.0,
        deadline: float | None = None,
        key: str = "",
        preview: int = 0,
        **request: Any,
    ) -> Handle:
        """Takes a request, and returns at once.

        spec      what is asked: a Spec, a mapping of its keys, or the name of a solver
        n         how many samples; None follows seeds, condition or x. They may be made one after another
        network   its name, where the engine has several
        adapter   the name of weight deltas of that network; requests of one adapter share a batch
        priority  higher ones get seats of their batch first, and their batch its turns
        deadline  seconds from now by which it has to be done; it is refused where that cannot be
        key       of the submitter: those who wait share the seats evenly, and batches' time
        preview   rows between two previews, 0 for none
        request   seed, seeds, condition, guidance, compose, negative, x, start, noised, mask, known, noise
                  and record, as in `Sampler.sample`

        Raises ValueError where it does not suit the network, QueueFull, EngineClosed and DeadlineMissed.
        """
        ticket = self.checked(spec, n, network=network, adapter=adapter, **request)
        return self.put(ticket, priority=priority, deadline=deadline, key=key, preview=preview)

    def checked(
        self,
        spec: Spec | str | Mapping[str, Any],
        n: int | None = None,
        *,
        network: str | None = None,
        adapter: str | None = None,
        **request: Any,
    ) -> Ticket:
        """A request that suits its network, for `put`: what `submit` raises is raised here."""
        served = self._of(network)
        if error := self.objection():
            raise error
        checks.names("submit", request, ASKED)
        self._loop.expect(served)
        with torch.no_grad():
            return served.ticket(spec_of(spec), n, request, adapter)

    def put(
        self,
        ticket: Ticket,
        *,
        priority: float = 0.0,
        deadline: float | None = None,
        key: str = "",
        preview: int = 0,
    ) -> Handle:
        """Takes the ticket of a request that was checked, once; the rest is as of `submit`."""
        loop, now = self._loop, self._loop.clock()
        ticket.priority = checks.number("priority", priority)
        ticket.preview = checks.whole("preview", preview, 0, "rows between two previews, or 0")
        ticket.key, ticket.submitted, ticket.waited = str(key), now, now
        ticket.deadline = ticket.due(deadline, now)
        handle = ticket.handle
        handle.on_cancel = lambda: loop.left(ticket)
        loop.put(ticket, self.objection)
        return handle

    def update_weights(self, weights: Mapping[str, Tensor], network: str | None = None) -> None:
        """Puts other weights into a network between two rows, in place; as Sampler.update_weights.

        Adapters are then added to these.
        """
        served = self._of(network)

        def put() -> None:
            served.weights.update(weights)
            served.renew()

        self._loop.ask(put)

    def add_adapter(self, name: str, deltas: Mapping[str, Any], network: str | None = None) -> None:
        """Weight deltas that requests name, `submit(adapter=name)`.

        deltas   {name of a parameter: D of its shape, or (A, B) or (A, B, scale)}: the weight W is W + D, or
                 W + scale B A, in float32 and rounded once. A [r, in] and B [out, r]; of a convolution also
                 [r, in, kh, kw] and [out, r, 1, 1]
        network  its name, where the engine has several

        Another of that name takes its place for requests from then on. Your module keeps its weights.
        Raises ValueError where a name is no parameter's or a shape does not fit.
        """
        self._of(network).weights.add_adapter(name, deltas)

    def remove_adapter(self, name: str, network: str | None = None) -> None:
        """Takes no more requests with an adapter; those that are here keep it."""
        self._of(network).weights.remove_adapter(name)

    def probe(
        self, spec: Spec | str | Mapping[str, Any], *, network: str | None = None, **request: Any
    ) -> Probe:
        """Calls a network in all sizes that its batches have, between two rows; print what comes back.

        spec, network, request  as in `submit`, of one sample: calls of requests like this are tried
        Raises ValueError where it does not suit the network.
        """
        served = self._of(network)
        checks.names("probe", request, ASKED)
        self._loop.expect(served)
        with torch.no_grad():
            ticket = served.ticket(spec_of(spec), 1, request)
            return self._loop.ask(lambda: self._probed(served, ticket))

    def _probed(self, served: Served, ticket: Ticket) -> Probe:
        with torch.no_grad():
            self._loop.room.load(served)
            probe = served.open(ticket)[1]
            if probe is None:
                raise ValueError("there is nothing to try: Engine(probe=False), or no call is made")
            probe.finish()
            return probe

    def snapshot(self) -> dict[str, Any]:
        """What the engine is doing, as JSON-able values."""
        here = list(self._loop.here.values())
        seated = [ticket.admitted > 0 for ticket in here]
        lanes = [lane for served in self._served.values() for lane in list(served.lanes.values())]
        opening = any(ticket.signature not in ticket.served.lanes for ticket in here)
        return self._loop.metrics.snapshot() | {
            "queued": seated.count(False),
            "running": seated.count(True),
            "seats": self.capacity * len(lanes),
            "occupied": sum(min(self.capacity, len(lane.seats)) for lane in lanes),
            "lanes": len(lanes),
            "fresh": opening or any(lane.fresh for lane in lanes if lane.busy),
            "bytes": self._loop.room.taken,
            "networks": sorted(
                name for name, served in self._served.items() if served.weights.placed
            ),
            "probes": {
                name: [probe.report() for probe in list(served.probes.values())]
                for name, served in self._served.items()
            },
        }

    def close(self, drain: bool = True) -> None:
        """Takes nothing more, and returns when its thread has ended.

        drain  whether what was taken is done first; else it is cancelled
        """
        self._loop.close("drain" if checks.flag("drain", drain) else "now")

    def _of(self, network: str | None) -> Served:
        if network is None and len(self._served) == 1:
            return next(iter(self._served.values()))
        served: Mapping[Any, Served] = self._served
        try:
            return served[network]
        except (KeyError, TypeError):  # a list has no hash
            known = ", ".join(sorted(map(repr, self._served)))
            raise ValueError(f"network={checks.said(network)}: this engine has {known}") from None

    def objection(self) -> EngineError | None:
        """Why nothing more is taken; None where something is."""
        if self._loop.forked:
            return EngineClosed(
                "an engine's thread does not follow a fork; make another in this process"
            )
        if self._loop.closing:
            return self._loop.closed()
        if len(self._loop.here) >= self.max_queue:
            return QueueFull(
                f"{len(self._loop.here)} requests are here and max_queue is {self.max_queue}; try again when "
                "some have ended"
            )
        return None
