"""Who gets the next seat: priorities that age, and fairness between submitters."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable

from .ticket import Ticket

Score = tuple[int, float, int]


class Shares:
    """What each submitter has had of the engine. One who comes back starts level with those who are here."""

    def __init__(self) -> None:
        self._had: dict[str, float] = {}
        self._here: Counter[str] = Counter()

    def had(self, key: str) -> float:
        return self._had.get(key, 0.0)

    def enter(self, key: str) -> None:
        """One request more of a submitter is here."""
        if not self._here[key]:
            self._had[key] = min(self._had.values(), default=0.0)
        self._here[key] += 1

    def leave(self, key: str) -> None:
        """One fewer."""
        self._here[key] -= 1
        if not self._here[key]:
            del self._here[key], self._had[key]

    def charge(self, key: str, cost: float) -> None:
        self._had[key] += cost


class Deadlines:
    """Who has a deadline, by when that has to be looked at."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Ticket]] = []
        self._gone = 0

    def put(self, ticket: Ticket, row_s: float) -> None:
        """Who has no seat yet is looked at when the rows that are left take too long.

        row_s  seconds that a row takes at least
        """
        if ticket.deadline < math.inf:
            when = ticket.deadline - (0.0 if ticket.admitted else ticket.least_s(row_s))
            heapq.heappush(self._heap, (when, ticket.order, ticket))

    def due(self, now: float) -> list[Ticket]:
        """Who has to be looked at, once; put them back who have to be again."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return [ticket for ticket in due if not ticket.ended]

    def leave(self) -> None:
        """A request has ended. Those who have are let go of when they are the most."""
        self._gone += 1
        if self._heap and 2 * self._gone > len(self._heap):
            self._heap, self._gone = [e for e in self._heap if not e[2].ended], 0
            heapq.heapify(self._heap)


class Waiting:
    """The requests of a lane that still need seats, best first.

    Order: priority, raised by one for each `aging` seconds without a seat; then the submitter who had less;
    then the request that had less, so that a small one passes a large one; then who came first.
    """

    def __init__(self, shares: Shares, aging: float) -> None:
        self._shares, self._aging = shares, aging
        self._heaps: dict[str, list[tuple[Score, Ticket]]] = {}  # of each submitter
        self._here: dict[
            int, Ticket
        ] = {}  # who waits, by order; the heaps hold some who have ended
        self._priorities: Counter[float] = Counter()  # of these
        self._ordered = 0.0

    def __len__(self) -> int:
        """Of those that are held, some of whom may have ended."""
        return sum(map(len, self._heaps.values()))

    def __bool__(self) -> bool:
        """Whether somebody waits, and has not been cancelled a moment ago."""
        return any(ticket.waiting for ticket in self._here.values())

    @property
    def priority(self) -> float:
        """The highest of who waits, which age does not change; -infinity where nobody does."""
        return max(self._priorities, default=-math.inf)

    def put(self, ticket: Ticket, now: float) -> None:
        heap = self._heaps.setdefault(ticket.key, [])
        heapq.heappush(heap, (self._score(ticket, now), ticket))
        self._here[ticket.order] = ticket
        self._priorities[ticket.priority] += 1

    def pop(self, now: float) -> Ticket | None:
        """Who is next, for one sample; put it back where it has more. None where nobody waits."""
        if now - self._ordered > self._aging:
            self._raise(now)
        best: tuple[tuple[float, ...], str] | None = None
        for key, heap in list(self._heaps.items()):
            while heap and not heap[0][1].waiting:
                self._out(heapq.heappop(heap)[1])
            if not heap:
                del self._heaps[key]
                continue
            level, service, order = heap[0][0]
            candidate = (level, self._shares.had(key), service, order), key
            if best is None or candidate < best:
                best = candidate
        return None if best is None else self._out(heapq.heappop(self._heaps[best[1]])[1])

    def charge(self, ticket: Ticket, cost: float) -> None:
        """A sample of this cost got a seat."""
        ticket.service += cost
        self._shares.charge(ticket.key, cost)

    def leave(self, ticket: Ticket) -> None:
        """One who waits has ended. Those who have are let go of when they are the most."""
        self._out(ticket)
        if 2 * len(self._here) < len(self):
            self._sift(lambda score, _: score)

    def tickets(self) -> list[Ticket]:
        return [t for heap in self._heaps.values() for _, t in heap if t.waiting]

    def _raise(self, now: float) -> None:
        """Age changed the levels since they were put here."""
        self._sift(lambda _, ticket: self._score(ticket, now))
        self._ordered = now

    def _sift(self, scored: Callable[[Score, Ticket], Score]) -> None:
        """Keeps those who wait."""
        for key, heap in list(self._heaps.items()):
            heap[:] = [(scored(score, ticket), ticket) for score, ticket in heap if ticket.waiting]
            heapq.heapify(heap)
            if not heap:
                del self._heaps[key]

    def _out(self, ticket: Ticket) -> Ticket:
        """It waits no more."""
        if self._here.pop(ticket.order, None) is not None:
            self._priorities[ticket.priority] -= 1
            if not self._priorities[ticket.priority]:
                del self._priorities[ticket.priority]
        return ticket

    def _score(self, ticket: Ticket, now: float) -> Score:
        level = -math.floor(ticket.priority + (now - ticket.waited) / self._aging)
        return level, ticket.service, ticket.order
