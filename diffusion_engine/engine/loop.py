"""`Loop`: the engine's thread. It takes in what came, gives seats, and moves one lane by a row at a time."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from .. import trace
from .errors import Cancelled, DeadlineMissed, EngineClosed, EngineError, NonFinite, bare
from .handle import Status
from .lane import Lane
from .metrics import Metrics
from .room import Room
from .served import Served
from .ticket import Ticket
from .turns import Turns
from .waiting import Deadlines, Shares, Waiting

Act = Callable[[], Any]

EXIT = 10.0  # seconds that the end of the process waits for a row


class Loop:
    """Its thread starts with the first request. What other threads ask for waits for the next row.

    served     the networks
    max_bytes  that placed networks and batches may take; those nobody uses go first
    aging      seconds without a seat that raise a request's priority by one
    clock      seconds that never go back
    here       the requests that have not ended, by their order
    closing    None, "drain" or "now"
    broken     the error of its own by which the thread ended
    lane       what is made of a batch
    """

    def __init__(
        self, served: Sequence[Served], max_bytes: int, aging: float, clock: Callable[[], float]
    ) -> None:
        self._served, self._aging, self.clock = served, aging, clock
        self.metrics = Metrics()
        self.room = Room(served, max_bytes, self.metrics)
        self.lane: type[Lane] = Lane
        self.here: dict[int, Ticket] = {}
        self.closing: str | None = None
        self.broken: BaseException | None = None
        self._shares, self._turns = Shares(), Turns(aging)
        self._arrived: deque[Ticket] = deque()
        self._gone: deque[Ticket] = deque()
        self._asked: deque[tuple[Future, Act]] = deque()
        self._deadlines = Deadlines()
        self._order = 0
        self._process = os.getpid()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, ticket: Ticket, objection: Callable[[], Exception | None]) -> None:
        """Takes a request.

        objection  why nothing more is taken, looked at once more
        """
        with self._wake:
            if error := objection():
                raise error
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="engine", daemon=True)
                thread.start()
                self._thread = thread
                atexit.register(self._exit)
            self._order += 1
            ticket.order = self._order
            self.here[ticket.order] = ticket
            self._arrived.append(ticket)
            self.metrics.submitted += 1
            self._wake.notify()

    def expect(self, served: Served) -> None:
        """Makes room for a network that is about to be placed. Raises ValueError where there is none."""
        if served.weights.fresh and (missing := served.weights.missing):
            if objection := self.room.objection(served):
                raise ValueError(objection)
            self.ask(lambda: self.room.make(missing, keep=served))

    def left(self, ticket: Ticket) -> None:
        """A request was cancelled, by whichever thread."""
        with self._wake:
            if self.here.pop(ticket.order, None) is not None:
                self._gone.append(ticket)
                self._wake.notify()

    def ask(self, act: Act) -> Any:
        """Does something between two rows, or here where nothing runs."""
        with self._wake:
            if self.closing:
                raise self.closed()
            if self._thread is None or self._thread is threading.current_thread():
                return act()
            future: Future = Future()
            self._asked.append((future, act))
            self._wake.notify()
        return future.result()

    def closed(self) -> EngineClosed:
        """Why nothing more is done."""
        if self.broken is not None:
            return EngineClosed(f"the engine broke down ({self.broken!r}); make another")
        return EngineClosed("the engine is closed; make another")

    @property
    def forked(self) -> bool:
        """Whether this is a process that a fork made, in which the thread is not."""
        return os.getpid() != self._process

    def close(self, how: str, timeout: float | None = None) -> None:
        """Ends when what is here is done ("drain"), or at the next row ("now"); waits for that."""
        if self.forked:
            return
        thread = self.let_go(how)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def let_go(self, how: str = "drain") -> threading.Thread | None:
        """As close, without waiting; the thread that ends."""
        with self._wake:
            self.closing = "now" if self.closing == "now" else how
            self._wake.notify()
            thread = self._thread
        if thread is None:
            self._drop()
        return thread

    def _exit(self) -> None:
        """The process ends: no thread may be in a network when the interpreter goes."""
        self.close("now", EXIT)

    def _drop(self) -> None:
        """Lets go of the networks and their batches."""
        for served in self._served:
            served.close()

    def _run(self) -> None:
        try:
            with torch.no_grad():
                while self._turn():
                    pass
        except BaseException as error:
            self._broken(error)
        finally:
            self._drop()
            atexit.unregister(self._exit)

    def _turn(self) -> bool:
        """One row of one lane. False when there is nothing more to do."""
        self._await_news()
        now, closing, gone = self.clock(), self.closing, len(self._gone)
        while self._arrived:  # those too who left, or will be closed upon: they came before
            self._enter(self._arrived.popleft(), now)
        for _ in range(gone):
            self._leave(self._gone.popleft())
        while self._asked:
            _answer(*self._asked.popleft())
        if closing == "now":
            for ticket in list(self.here.values()):
                self._end(ticket, Cancelled("the engine was closed before it was done"))
        self._expire(now)
        lanes = self._busy()
        if lanes:
            lane = self._turns.next(lanes, now)
            lane.turned = lane.served.turned = now
            self._move(lane, lanes, now)
        with self._wake:
            return bool(lanes or not self.closing or self.here or self._gone or self._asked)

    def _await_news(self) -> None:
        """Returns at once where there is something to move."""
        with self._wake:
            idle = not any(lane.busy for s in self._served for lane in s.lanes.values())
            while idle and not (self._arrived or self._gone or self._asked or self.closing):
                self._wake.wait()

    def _busy(self) -> list[Lane]:
        return [lane for s in self._served for lane in s.lanes.values() if lane.busy]

    def _enter(self, ticket: Ticket, now: float) -> None:
        """A request waits for a seat in its lane, which is opened where there is none."""
        self._shares.enter(ticket.key)
        if ticket.ended:
            return
        lanes = ticket.served.lanes
        try:
            lane = lanes.get(ticket.signature) or self.opened(ticket)
        except Exception as error:
            self._end(ticket, error)
            return
        lanes[ticket.signature] = lane
        if not lane.busy:
            self._turns.join(lane, self._busy(), now)
        lane.waiting.put(ticket, now)
        self._deadlines.put(ticket, lane.least_s)

    def opened(self, ticket: Ticket) -> Lane:
        """A lane for a request and those like it. Raises EngineError where they cannot share one."""
        served, under = ticket.served, ticket.adapter
        if objection := self.room.objection(served, ticket.capacity):
            raise EngineError(objection)
        if served.untried(ticket):
            self.room.load(served)
        for lane in served.stale():
            served.shut(lane)
        batch, probe = served.open(ticket)
        self.room.make(batch.bytes, keep=served)
        waiting = Waiting(self._shares, self._aging)
        return self.lane(served, under, batch, waiting, self._end, probe)

    def _move(self, lane: Lane, lanes: Sequence[Lane], now: float) -> None:
        try:
            self.room.prepare(lane)
        except Exception as error:
            for ticket in lane.tickets():
                self._end(ticket, error)
            lane.waiting.pop(now)  # lets go of all of them
            return
        with trace.span("admit"):
            started = lane.admit(now)
        for ticket in started:
            ticket.handle.start()
            self.metrics.queued_s.add(now - ticket.submitted)
        if not lane.seats:
            return
        self._turns.charge(lane, lanes)
        captured = lane.batch.stages.captured
        for ticket, sample, made in lane.step():
            if not ticket.ended and ticket.take(sample, made):
                self._end(ticket, None)
        self.metrics.row(lane.batch, captured)
        self.metrics.row_s.add(lane.row_s)

    def _end(self, ticket: Ticket, error: BaseException | None) -> None:
        """A request is done, or cannot go on."""
        if ticket.gone:
            return
        handle, cancelled = ticket.handle, isinstance(error, Cancelled)
        status: Status = "done" if error is None else "cancelled" if cancelled else "failed"
        self.metrics.nonfinite += isinstance(error, NonFinite)
        self._leave(ticket, status)  # before anybody is told, who may look, or submit the next
        if not handle.end(None if error is None else bare(error)):
            self.metrics.withdrawn(status)

    def _leave(self, ticket: Ticket, status: Status = "cancelled") -> None:
        """A request has ended: its seats are free, and it counts no more."""
        if ticket.gone:
            return
        self._shares.leave(ticket.key)
        self._deadlines.leave()
        if status != "done" and (lane := ticket.served.lanes.get(ticket.signature)) is not None:
            lane.release(ticket)  # of one that is done all seats are free
        with self._wake:
            self.here.pop(ticket.order, None)
        self.metrics.ended(status, self.clock() - ticket.submitted)
        ticket.leave(status)

    def _expire(self, now: float) -> None:
        """Cancels who has missed a deadline, or waits and cannot meet it any more."""
        for ticket in self._deadlines.due(now):
            least_s = ticket.served.lanes[ticket.signature].least_s
            if reason := ticket.missed(now, least_s):
                self._end(ticket, DeadlineMissed(reason))
            else:
                self._deadlines.put(ticket, least_s)

    def _broken(self, error: BaseException) -> None:
        """The thread ends by an error of its own: nobody waits for ever."""
        logging.getLogger(__name__).critical("the engine broke down", exc_info=error)
        with self._wake:
            self.closing, self.broken = "now", bare(error)
            asked, self._asked = self._asked, deque()
            here, self.here = self.here, {}
        for future, _ in asked:
            future.set_exception(self.closed())
        for ticket in here.values():
            reason = EngineError(f"the engine broke down by an error of its own: {error!r}")
            reason.__cause__ = error
            ticket.handle.end(reason)
            ticket.leave("failed")


def _answer(future: Future, act: Act) -> None:
    try:
        future.set_result(act())
    except BaseException as error:
        future.set_exception(error)
