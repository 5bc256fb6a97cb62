"""`Loop`: the engine's thread. It takes in what came, gives seats, and moves one lane by a row at a time."""

from __future__ import annotations

import heapq
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from ..executors import Capacity
from .errors import Cancelled, DeadlineMissed, EngineClosed
from .lane import Lane
from .metrics import Metrics
from .served import Served
from .ticket import Ticket
from .waiting import Shares, Waiting

Act = Callable[[], Any]


class Loop:
    """Its thread starts with the first request. What other threads ask for waits for the next row.

    served     the networks
    max_bytes  that placed networks and batches may take; those nobody uses go first
    aging      seconds without a seat that raise a request's priority by one
    clock      seconds that never go back
    here       the requests that have not ended, by their order
    lane       what is made of a batch
    """

    def __init__(
        self, served: Sequence[Served], max_bytes: int, aging: float, clock: Callable[[], float]
    ) -> None:
        self._served, self._max_bytes, self._aging, self.clock = served, max_bytes, aging, clock
        self.metrics = Metrics()
        self.lane: type[Lane] = Lane
        self.here: dict[int, Ticket] = {}
        self.closing: str | None = None
        self._shares = Shares()
        self._arrived: deque[Ticket] = deque()
        self._gone: deque[Ticket] = deque()
        self._asked: deque[tuple[Future, Act]] = deque()
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._order = 0
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None

    def put(self, ticket: Ticket, objection: Callable[[], Exception | None]) -> None:
        """Takes a request.

        objection  why nothing more is taken, looked at once more
        """
        with self._wake:
            if error := objection():
                raise error
            self._order += 1
            ticket.order = self._order
            self.here[ticket.order] = ticket
            ticket.served.users += 1
            self._arrived.append(ticket)
            self.metrics.submitted += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
                self._thread.start()
            self._wake.notify()

    def left(self, ticket: Ticket) -> None:
        """A request was cancelled, by whichever thread."""
        with self._wake:
            self._gone.append(ticket)
            self._wake.notify()

    def ask(self, act: Act) -> Any:
        """Does something between two rows, or here where nothing runs."""
        with self._wake:
            thread = self._thread
            if thread is None or thread is threading.current_thread() or self.closing:
                return act()
            future: Future = Future()
            self._asked.append((future, act))
            self._wake.notify()
        return future.result()

    def close(self, how: str) -> None:
        """Ends when what is here is done ("drain"), or at the next row ("now"); waits for that."""
        with self._wake:
            self.closing = how
            self._wake.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        try:
            with torch.no_grad():
                while self._turn():
                    pass
        except BaseException as error:
            self._broken(error)
            raise

    def _turn(self) -> bool:
        """One row of one lane. False when there is nothing more to do."""
        came, gone, asked = self._news()
        now = self.clock()
        for ticket in came:
            self._enter(ticket, now)
        for ticket in gone:
            self._leave(ticket)
        for future, act in asked:
            _answer(future, act)
        if self.closing == "now":
            for ticket in list(self.here.values()):
                self._end(ticket, Cancelled("the engine was closed before it was done"))
        self._expire(now)
        lanes = self._busy()
        if lanes:
            lane = max(lanes, key=lambda lane: (now - lane.turned) * max(1, lane.work))
            lane.turned = now
            self._move(lane, now)
        return bool(lanes) or self.closing is None or bool(self.here)

    def _news(self) -> tuple[Sequence[Ticket], Sequence[Ticket], Sequence[tuple[Future, Act]]]:
        """What came since the last row; where there is nothing to move, what comes next."""
        with self._wake:
            idle = not self._busy()
            while idle and not (self._arrived or self._gone or self._asked or self.closing):
                self._wake.wait()
            news = self._arrived, self._gone, self._asked
            self._arrived, self._gone, self._asked = deque(), deque(), deque()
        return news

    def _busy(self) -> list[Lane]:
        return [lane for s in self._served for lane in s.lanes.values() if lane.busy]

    def _enter(self, ticket: Ticket, now: float) -> None:
        """A request waits for a seat in its lane, which is opened where there is none."""
        self._shares.enter(ticket.key)
        if ticket.deadline < math.inf:
            heapq.heappush(self._deadlines, (ticket.deadline, ticket.order, ticket))
        lanes = ticket.served.lanes
        try:
            lane = lanes.pop(ticket.capacity, None) or self._opened(ticket.served, ticket.capacity)
        except Exception as error:
            self._end(ticket, error)
            return
        lanes[ticket.capacity] = lane  # the last one used is the last one dropped
        lane.waiting.put(ticket, now)

    def _opened(self, served: Served, capacity: Capacity) -> Lane:
        batch = served.first.executor.open(served.network, capacity)
        self._make_room(batch.bytes)
        return self.lane(served.network, batch, Waiting(self._shares, self._aging), self._end)

    def _make_room(self, more: int) -> None:
        """Drops batches that nobody uses, and then networks, until the budget holds."""
        for served in self._served:
            for capacity, lane in list(served.lanes.items()):
                if not lane.busy and self._over(more):
                    del served.lanes[capacity]
        for served in self._served:
            if served.placed and not served.users and self._over(more):
                served.drop()

    def _over(self, more: int) -> bool:
        return more + sum(served.bytes for served in self._served) > self._max_bytes

    def _move(self, lane: Lane, now: float) -> None:
        for ticket in lane.admit(now):
            ticket.handle.start()
            self.metrics.queued_s.add(now - ticket.submitted)
        if not lane.seats:
            return
        self.metrics.row(lane)
        for ticket, sample, made in lane.step():
            if not ticket.handle.ended and ticket.take(sample, made):
                self._end(ticket, None)
        self.metrics.row_s.add(lane.row_s)

    def _end(self, ticket: Ticket, error: BaseException | None) -> None:
        """A request is done, or cannot go on."""
        ticket.handle.end(error)
        self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        """A request has ended: its seats are free, and it counts no more."""
        with self._wake:
            if self.here.pop(ticket.order, None) is None:
                return
        ticket.served.users -= 1
        self._shares.leave(ticket.key)
        if ticket.handle.status != "done":
            ticket.drop()
            if (lane := ticket.served.lanes.get(ticket.capacity)) is not None:
                lane.release(ticket)
        self.metrics.ended(ticket, self.clock())

    def _expire(self, now: float) -> None:
        """Cancels who has missed a deadline."""
        waiting = self._deadlines
        while waiting and (waiting[0][2].handle.ended or waiting[0][0] <= now):
            _, _, ticket = heapq.heappop(waiting)
            if not ticket.handle.ended:
                late = now - ticket.submitted
                self._end(ticket, DeadlineMissed(f"the request was not done after {late:.3g} s"))

    def _broken(self, error: BaseException) -> None:
        """The thread ends by an error of its own: nobody waits for ever."""
        with self._wake:
            self.closing = "now"
            asked, self._asked = self._asked, deque()
            here = list(self.here.values())
        for future, _ in asked:
            future.set_exception(EngineClosed(f"the engine broke down: {error!r}"))
        for ticket in here:
            ticket.handle.end(error)


def _answer(future: Future, act: Act) -> None:
    try:
        future.set_result(act())
    except Exception as error:
        future.set_exception(error)
