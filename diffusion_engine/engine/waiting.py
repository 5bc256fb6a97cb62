"""Who gets the next seat: priorities that age, and fairness between submitters."""

from __future__ import annotations

import heapq
import math
from collections import Counter

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


class Waiting:
    """The requests of a lane that still need seats, best first.

    Order: priority, raised by one for each `aging` seconds without a seat; then the submitter who had less;
    then the request that had less, so that a small one passes a large one; then who came first.
    """

    def __init__(self, shares: Shares, aging: float) -> None:
        self._shares, self._aging = shares, aging
        self._heaps: dict[str, list[tuple[Score, Ticket]]] = {}  # of each submitter
        self._ordered = 0.0

    def __len__(self) -> int:
        return sum(map(len, self._heaps.values()))

    def put(self, ticket: Ticket, now: float) -> None:
        heap = self._heaps.setdefault(ticket.key, [])
        heapq.heappush(heap, (self._score(ticket, now), ticket))

    def pop(self, now: float) -> Ticket | None:
        """Who is next, for one sample; put it back where it has more. None where nobody waits."""
        if now - self._ordered > self._aging:
            self._raise(now)
        best: tuple[tuple[float, ...], str] | None = None
        for key, heap in list(self._heaps.items()):
            while heap and not heap[0][1].waiting:
                heapq.heappop(heap)
            if not heap:
                del self._heaps[key]
                continue
            level, *rest = heap[0][0]
            candidate = (level, self._shares.had(key), *rest), key
            best = candidate if best is None else min(best, candidate)
        return None if best is None else heapq.heappop(self._heaps[best[1]])[1]

    def charge(self, ticket: Ticket, cost: float) -> None:
        """A sample of this cost got a seat."""
        ticket.service += cost
        self._shares.charge(ticket.key, cost)

    def tickets(self) -> list[Ticket]:
        return [ticket for heap in self._heaps.values() for _, ticket in heap]

    def _raise(self, now: float) -> None:
        """Age changed the levels since they were put here."""
        for heap in self._heaps.values():
            heap[:] = [(self._score(ticket, now), ticket) for _, ticket in heap if ticket.waiting]
            heapq.heapify(heap)
        self._ordered = now

    def _score(self, ticket: Ticket, now: float) -> Score:
        level = -math.floor(ticket.priority + (now - ticket.waited) / self._aging)
        return level, ticket.service, ticket.order
