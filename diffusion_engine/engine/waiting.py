"""Who gets the next seat: priorities that age, and fairness between submitters."""

from __future__ import annotations

import heapq
from collections import Counter

from .ticket import Ticket

Score = tuple[int, float, float, int]


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
        self._heap: list[tuple[Score, Ticket]] = []
        self._ordered = 0.0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, ticket: Ticket, now: float) -> None:
        heapq.heappush(self._heap, (self._score(ticket, now), ticket))

    def pop(self, now: float) -> Ticket | None:
        """Who is next, for one sample; put it back where it has more. None where nobody waits."""
        if now - self._ordered > self._aging:  # scores only fall by age: a heap of old ones is wrong
            self._heap = [(self._score(t, now), t) for _, t in self._heap if t.waiting]
            heapq.heapify(self._heap)
            self._ordered = now
        while self._heap:
            score, ticket = self._heap[0]
            if not ticket.waiting:
                heapq.heappop(self._heap)
            elif (current := self._score(ticket, now)) > score:
                heapq.heapreplace(self._heap, (current, ticket))
            else:
                return heapq.heappop(self._heap)[1]
        return None

    def charge(self, ticket: Ticket, cost: float) -> None:
        """A sample of this cost got a seat."""
        ticket.service += cost
        self._shares.charge(ticket.key, cost)

    def tickets(self) -> list[Ticket]:
        return [ticket for _, ticket in self._heap]

    def _score(self, ticket: Ticket, now: float) -> Score:
        raised = ticket.priority + (now - ticket.waited) / self._aging
        return -int(raised // 1), self._shares.had(ticket.key), ticket.service, ticket.order
