"""`Engine`: a queue in front of batches, on a thread of its own."""

from __future__ import annotations

import heapq
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from .. import checks
from ..executors import Executor
from ..networks.decoder import Decoder
from ..networks.network import ScoreNetwork
from ..sampler.request import Request
from ..sampler.spec import Spec
from .errors import Cancelled, DeadlineMissed, EngineClosed, EngineError, QueueFull
from .handle import Handle
from .lane import Lane, roomy
from .metrics import Metrics
from .served import Served
from .ticket import Ticket
from .waiting import Shares, Waiting

QUEUE = 1024
BYTES = 8 << 30
AGING = 10.0  # seconds without a seat that raise a request's priority by one

SPEC = "give a Spec, the name of a solver, or a mapping of a Spec's keys"


class Engine:
    """Continuous batching: requests of any solvers, step counts, guidance, seeds and conditions share one
    batch, join and leave between rows, and each gets the bits that it would get alone.

    networks    a ScoreNetwork, or several by name
    capacity    samples of one batch
    device, dtype, backend, accelerate, executor, compile, decoder   of every network, as in Sampler
    batch       "bucket": a call has as many entries as are due (CUDA graphs: the next size of theirs), which
                changes as neighbours come and go. "fixed": every call has one size, so that a sample depends
                on its network, recipe, seed and that size alone, whatever the network
    max_queue   requests that wait or run at a time
    max_bytes   that placed networks and their batches may take together; those not used for longest go first
    aging       seconds without a seat that raise a request's priority by one

    A context manager; its thread starts with the first request. `submit` may be called from any thread, and
    handles awaited in any loop.
    """

    def __init__(
        self,
        networks: ScoreNetwork | Mapping[str, ScoreNetwork],
        capacity: int = 16,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        backend: str = "auto",
        accelerate: bool = False,
        executor: str | Executor = "eager",
        compile: bool = False,
        decoder: Decoder | None = None,
        batch: str = "bucket",
        max_queue: int = QUEUE,
        max_bytes: int = BYTES,
        aging: float = AGING,
    ) -> None:
        named = networks if isinstance(networks, Mapping) else {"": networks}
        if not named or not all(isinstance(n, ScoreNetwork) for n in named.values()):
            raise ValueError(
                f"networks={checks.said(networks)}: give a ScoreNetwork, or a mapping of names to some"
            )
        self.capacity = checks.whole("capacity", capacity, 1, "at least 1 sample a batch")
        self.max_queue = checks.whole("max_queue", max_queue, 1, "at least 1 request")
        self.max_bytes = checks.whole("max_bytes", max_bytes, 0, "bytes for networks and batches")
        self.fixed = checks.one_of("batch", batch, ("bucket", "fixed")) == "fixed"
        how = {
            "device": device, "dtype": dtype, "backend": backend, "accelerate": accelerate,
            "executor": executor, "compile": compile, "decoder": decoder, "batch_size": self.capacity,
        }  # fmt: skip
        self._served = {name: Served(name, network, how) for name, network in named.items()}
        self._aging = checks.number("aging", aging)
        self._shares = Shares()
        self.metrics = Metrics()
        self._here: dict[int, Ticket] = {}
        self._arrived: deque[Ticket] = deque()
        self._gone: deque[Ticket] = deque()
        self._asked: deque[tuple[Future, Callable[[], Any]]] = deque()
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._order = 0
        self._closing: str | None = None
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None

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
        priority  higher ones get seats first
        deadline  seconds from now by which it has to be done; it is refused where that cannot be
        key       of the submitter: those who wait share the seats evenly
        preview   rows between two previews, 0 for none
        request   seed, seeds, condition, guidance, compose, x, start, noised, mask, known and noise, as in
                  `Sampler.sample`

        Raises ValueError where it does not suit the network, QueueFull, EngineClosed and DeadlineMissed.
        """
        now = time.monotonic()
        served = self._of(network)
        self._refuse()
        with torch.no_grad():
            ticket = self._ticket(served, _spec(spec), n, request)
        ticket.priority = checks.number("priority", priority)
        ticket.key, ticket.submitted, ticket.waited = str(key), now, now
        ticket.preview = checks.whole("preview", preview, 0, "rows between two previews, or 0")
        ticket.deadline = self._deadline(deadline, now, ticket)
        handle = ticket.handle
        handle.on_cancel = lambda: self._left(ticket)
        with self._wake:
            self._refuse()
            self._order += 1
            ticket.order = self._order
            self._here[ticket.order] = ticket
            served.users += 1
            self._arrived.append(ticket)
            self.metrics.submitted += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="diffusion-engine", daemon=True)
                self._thread.start()
            self._wake.notify()
        return handle

    def update_weights(self, weights: Mapping[str, Tensor], network: str | None = None) -> None:
        """Puts other weights into a network between two rows, in place; as Sampler.update_weights."""
        served = self._of(network)
        self._between_rows(lambda: served.update_weights(weights))

    def snapshot(self) -> dict[str, Any]:
        """What the engine is doing, as JSON-able values."""
        with self._wake:
            here = list(self._here.values())
        status = [ticket.handle.status for ticket in here]
        lanes = [lane for s in self._served.values() for lane in list(s.lanes.values())]
        return self.metrics.snapshot() | {
            "queued": status.count("queued"),
            "running": status.count("running"),
            "seats": sum(lane.batch.capacity.seats for lane in lanes),
            "occupied": sum(len(lane.seats) for lane in lanes),
            "lanes": len(lanes),
            "networks": sorted(name for name, s in self._served.items() if s.placed),
        }

    def close(self, drain: bool = True) -> None:
        """Takes nothing more, and returns when its thread has ended.

        drain  whether what was taken is done first; else it is cancelled
        """
        with self._wake:
            self._closing = "drain" if drain else "now"
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _of(self, network: str | None) -> Served:
        if network is None and len(self._served) == 1:
            return next(iter(self._served.values()))
        if network not in self._served:
            known = ", ".join(sorted(map(repr, self._served)))
            raise ValueError(f"network={network!r}: this engine has {known}")
        return self._served[network]

    def _refuse(self) -> None:
        """Raises EngineError where nothing more is taken."""
        if self._closing is not None:
            raise EngineClosed("the engine is closed; make another")
        if len(self._here) >= self.max_queue:
            raise QueueFull(
                f"{len(self._here)} requests are here and max_queue is {self.max_queue}; try again when some "
                "have ended"
            )

    def _ticket(
        self, served: Served, spec: Spec, n: int | None, given: Mapping[str, Any]
    ) -> Ticket:
        sampler = served.sampler(spec)
        known = {name: value for name, value in spec.request().items() if value}
        encoding = known.pop("encoding", None)
        more = {} if encoding is None else {"encoding": encoding}
        request = Request.of(sampler, n, **known | dict(given) | more)
        plans, network = sampler.planned(request), served.first.network
        part = request.part(0, 1)
        jobs, capacity = sampler.prepared(network, part, plans[:1], denoised=True)
        widest = max(plans, key=lambda plan: (plan.entries, len(plan.rows)))
        room = roomy(capacity, self.capacity, network.null is not None)
        if objection := room.plan_objection(widest):
            raise ValueError(f"the request does not fit the engine's batch: {objection}")
        return Ticket(sampler, network, request, replace(room, fixed=self.fixed), plans)

    def _deadline(self, given: float | None, now: float, ticket: Ticket) -> float:
        if given is None:
            return math.inf
        seconds = checks.number("deadline", given)
        if seconds <= 0:
            raise ValueError(f"deadline={seconds:g} lies in the past; give seconds from now")
        lane = self._of_ticket(ticket).lanes.get(ticket.capacity)
        rounds = -(-ticket.n // self.capacity)
        least = 0.0 if lane is None else rounds * len(ticket.plans[0].rows) * lane.row_s
        if least > seconds:
            raise DeadlineMissed(
                f"deadline={seconds:g} s cannot be met: its rows alone take {least:.3g} s here"
            )
        return now + seconds

    def _of_ticket(self, ticket: Ticket) -> Served:
        return next(s for s in self._served.values() if s.placed and s.first.network is ticket.network)

    def _left(self, ticket: Ticket) -> None:
        """A request was cancelled, by whichever thread."""
        with self._wake:
            self._gone.append(ticket)
            self._wake.notify()

    def _between_rows(self, act: Callable[[], Any]) -> Any:
        """Does something on the engine's thread between two rows, or here where it does not run."""
        with self._wake:
            if self._thread is None or self._closing is not None:
                return act()
            future: Future = Future()
            self._asked.append((future, act))
            self._wake.notify()
        return future.result()

    def _run(self) -> None:
        with torch.no_grad():
            while self._turn():
                pass

    def _turn(self) -> bool:
        """Takes in what came, and moves one lane by a row. False when the engine has ended."""
        with self._wake:
            lanes = self._busy()
            while not (lanes or self._arrived or self._gone or self._asked or self._closing):
                self._wake.wait()
            came, self._arrived = self._arrived, deque()
            gone, self._gone = self._gone, deque()
            asked, self._asked = self._asked, deque()
        now = time.monotonic()
        for ticket in came:
            self._enter(ticket, now)
        for ticket in gone:
            self._leave(ticket)
        for future, act in asked:
            _answer(future, act)
        if self._closing == "now":
            self._cancel_all()
        self._expire(now)
        lanes = self._busy()
        if not lanes:
            return self._closing is None or bool(self._here)
        lane = max(lanes, key=lambda lane: (now - lane.turned) * max(1, lane.work))
        lane.turned = now
        self._step(lane, now)
        return True

    def _busy(self) -> list[Lane]:
        return [lane for s in self._served.values() for lane in s.lanes.values() if lane.busy]

    def _enter(self, ticket: Ticket, now: float) -> None:
        """A request waits for a seat in its lane, which is opened where there is none."""
        self._shares.enter(ticket.key)
        if ticket.deadline < math.inf:
            heapq.heappush(self._deadlines, (ticket.deadline, ticket.order, ticket))
        served = self._of_ticket(ticket)
        try:
            lane = served.lanes.get(ticket.capacity) or self._opened(served, ticket.capacity)
        except Exception as error:
            self._failed(ticket, error)
            return
        served.lanes[ticket.capacity] = served.lanes.pop(ticket.capacity, lane)
        lane.waiting.put(ticket, now)

    def _opened(self, served: Served, capacity: Any) -> Lane:
        sampler = served.first
        batch = sampler.executor.open(sampler.network, capacity)
        self._make_room(batch.bytes)
        lane = Lane(sampler.network, batch, Waiting(self._shares, self._aging), self._failed)
        served.lanes[capacity] = lane
        return lane

    def _make_room(self, more: int) -> None:
        """Drops batches nobody uses, and then networks, until the budget holds."""
        for served in self._served.values():
            for capacity, lane in list(served.lanes.items()):
                if more + sum(s.bytes for s in self._served.values()) <= self.max_bytes:
                    return
                if not lane.busy:
                    del served.lanes[capacity]
        for served in self._served.values():
            if more + sum(s.bytes for s in self._served.values()) <= self.max_bytes:
                return
            if served.placed and not served.users:
                served.drop()

    def _step(self, lane: Lane, now: float) -> None:
        for ticket in lane.admit(now):
            ticket.handle.start()
            self.metrics.queued_s.add(now - ticket.submitted)
        if not lane.seats:
            return
        self.metrics.row(lane)
        for ticket, sample, made in lane.step():
            if not ticket.handle.ended and ticket.take(sample, made):
                self._ended(ticket, None)
        self.metrics.row_s.add(lane.row_s)

    def _failed(self, ticket: Ticket, error: BaseException) -> None:
        self._ended(ticket, error)

    def _ended(self, ticket: Ticket, error: BaseException | None) -> None:
        if error is not None:
            ticket.drop()
        ticket.handle.end(error)
        self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        """A request has ended: its seats are free, and it counts no more."""
        with self._wake:
            if self._here.pop(ticket.order, None) is None:
                return
        served = self._of_ticket(ticket)
        served.users -= 1
        self._shares.leave(ticket.key)
        if ticket.handle.status != "done":
            ticket.drop()
            if (lane := served.lanes.get(ticket.capacity)) is not None:
                lane.release(ticket)
        self.metrics.ended(ticket, time.monotonic())

    def _expire(self, now: float) -> None:
        """Cancels who missed a deadline, or will."""
        while self._deadlines and (
            self._deadlines[0][2].handle.ended or self._deadlines[0][0] <= now
        ):
            _, _, ticket = heapq.heappop(self._deadlines)
            if not ticket.handle.ended:
                late = now - ticket.submitted
                self._failed(ticket, DeadlineMissed(f"it was not done after {late:.3g} s"))

    def _cancel_all(self) -> None:
        for ticket in list(self._here.values()):
            self._failed(ticket, Cancelled("the engine was closed before it was done"))


def _spec(given: Any) -> Spec:
    if isinstance(given, Spec):
        return given
    if isinstance(given, str):
        given = {"solver": given}
    if not isinstance(given, Mapping):
        raise ValueError(f"spec={checks.said(given)}: {SPEC}")
    return Spec.model_validate(given)


def _answer(future: Future, act: Callable[[], Any]) -> None:
    try:
        future.set_result(act())
    except Exception as error:
        future.set_exception(error)
