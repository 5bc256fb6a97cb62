"""`Queue`: who goes to a worker next: the highest priority, which age raises; who had less; the first one."""

from __future__ import annotations

import heapq
import math
from typing import Generic, Protocol, TypeVar

Score = tuple[int, float, int]


class Waits(Protocol):
    """What the queue reads of a request.

    key       of its submitter
    priority  higher ones first
    arrived   when, on the queue's clock
    cost      entries x rows
    """

    @property
    def key(self) -> str: ...

    @property
    def priority(self) -> float: ...

    @property
    def arrived(self) -> float: ...

    @property
    def cost(self) -> int: ...


R = TypeVar("R", bound=Waits)


class Queue(Generic[R]):
    """Requests that wait for a worker.

    aging  seconds that raise a priority by one
    """

    def __init__(self, aging: float) -> None:
        self._aging, self._order, self._ordered = aging, 0, 0.0
        self._heaps: dict[str, list[tuple[Score, R]]] = {}  # of each submitter
        self._had: dict[str, int] = {}  # what submitters have got since anybody waits

    def __len__(self) -> int:
        return sum(map(len, self._heaps.values()))

    def put(self, request: R, now: float) -> None:
        """It waits, behind those like it that arrived before."""
        key = request.key
        if key not in self._heaps:
            # Who comes back starts level with those who are here.
            least = min((self._had[other] for other in self._heaps), default=0)
            self._had[key] = max(self._had.get(key, 0), least)
            self._heaps[key] = []
        self._order += 1
        score = self._level(request, now), request.arrived, self._order
        heapq.heappush(self._heaps[key], (score, request))

    def peek(self, now: float) -> R | None:
        """Who is next, and stays; None where nobody waits."""
        key = self._first(now)
        return None if key is None else self._heaps[key][0][1]

    def pop(self, now: float) -> R | None:
        """Who is next, and waits no more."""
        key = self._first(now)
        if key is None:
            return None
        request = heapq.heappop(self._heaps[key])[1]
        self._had[key] += max(1, request.cost)
        self._tidy(key)
        return request

    def remove(self, request: R) -> None:
        """It waits no more; nothing where it did not."""
        heap = self._heaps.get(request.key, [])
        if kept := [entry for entry in heap if entry[1] is not request]:
            heapq.heapify(kept)
        heap[:] = kept
        self._tidy(request.key)

    def requests(self) -> list[R]:
        """Who waits."""
        return [request for heap in self._heaps.values() for _, request in heap]

    def _first(self, now: float) -> str | None:
        """Of whom the next request is."""
        if now - self._ordered > self._aging:
            self._raise(now)
        return min(self._heaps, key=self._rank, default=None)

    def _rank(self, key: str) -> tuple[int, int, float, int]:
        level, arrived, order = self._heaps[key][0][0]
        return level, self._had[key], arrived, order

    def _level(self, request: R, now: float) -> int:
        return -math.floor(request.priority + (now - request.arrived) / self._aging)

    def _raise(self, now: float) -> None:
        """Age has changed the levels."""
        for heap in self._heaps.values():
            heap[:] = [((self._level(one, now), *score[1:]), one) for score, one in heap]
            heapq.heapify(heap)
        self._ordered = now

    def _tidy(self, key: str) -> None:
        """Lets go of a submitter of whom nothing waits."""
        if not self._heaps.get(key, True):
            del self._heaps[key]
        if not self._heaps:
            self._had.clear()
