"""A queue in front of engines, event by event: replicas of seats that step row by row, as `Engine` does.

A request takes a seat for so many rows. All who sit in a replica step together, in a time that grows with
the entries of its call; who comes joins at the end of the row that runs, and who is done leaves there. Who
joins draws its noise in a row of the others, which calls the network for them alone, and does so already in
the last row of who makes room.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

ROUTINGS = ("shared", "two", "random")


@dataclass(eq=False, slots=True)
class Request:
    """One sample that is asked for at a time.

    rows     calls of the network; entries: of each call, 2 with guidance
    started  when it first sat; done: when it was; lost: rows that were run in vain
    """

    at: float
    rows: int
    entries: float = 1.0
    left: int = 0
    started: float = -1.0
    done: float = -1.0
    lost: int = 0

    @property
    def wait(self) -> float:
        return self.started - self.at

    @property
    def latency(self) -> float:
        return self.done - self.at


@dataclass(eq=False, slots=True)
class Replica:
    """One engine: who steps, who joins at the row's end, and who waits for it alone."""

    number: int
    active: list[Request] = field(default_factory=list)
    joining: list[Request] = field(default_factory=list)
    waiting: deque[Request] = field(default_factory=deque)
    began: float = 0.0
    busy: float = 0.0
    alive: bool = True

    @property
    def load(self) -> int:
        return len(self.active) + len(self.joining) + len(self.waiting)


class Simulation:
    """Runs requests through replicas.

    replicas  how many there are at the beginning; seats: of each
    row_s     seconds of a row by the entries of its call
    routing   shared: one queue, whose first takes the next free seat, on the replica with the fewest taken;
              two: each goes at once to the less loaded of two replicas, drawn; random: to one, drawn
    ahead     whether the shared queue gives a seat away in the last row of who sits there, as Engine does;
              without it a request is bound to a replica only when one of its seats is free
    """

    def __init__(
        self,
        replicas: int,
        seats: int,
        row_s: Callable[[float], float],
        routing: str = "shared",
        ahead: bool = True,
        seed: int = 0,
    ) -> None:
        self.seats, self.row_s, self.routing, self.ahead = seats, row_s, routing, ahead
        self.random = random.Random(seed)
        self.now = 0.0
        self.queue: deque[Request] = deque()  # of the shared one
        self.replicas: list[Replica] = []
        self.done: list[Request] = []
        self._events: list[tuple[float, int, Callable[..., None], tuple]] = []
        self._order = self._made = 0
        self._free: list[tuple[int, int, Replica]] = []  # those with free seats, some of them stale
        for _ in range(replicas):
            self.add()

    def at(self, when: float, act: Callable[..., None], *given: object) -> None:
        """Something that happens at a time."""
        self._order += 1
        heapq.heappush(self._events, (when, self._order, act, given))

    def run(self, arrivals: Iterable[Request]) -> list[Request]:
        """All requests, done; other events go on until then."""
        coming = iter(arrivals)
        more = self._next(coming)
        while more or self.queue or any(replica.load for replica in self.replicas):
            if not self._events:
                raise RuntimeError("requests wait and nothing happens any more: no replica is left")
            self.now, _, act, given = heapq.heappop(self._events)
            act(*given)
            if act == self._arrive:
                more = self._next(coming)
        return self.done

    def _next(self, coming: Iterable[Request]) -> bool:
        request = next(coming, None)  # type: ignore[call-overload]
        if request is not None:
            self.at(request.at, self._arrive, request)
        return request is not None

    def add(self) -> None:
        """Another replica is there."""
        self._made += 1
        replica = Replica(self._made)
        self.replicas.append(replica)
        self._noted(replica)
        self._step(replica)

    def lose(self, replica: Replica) -> None:
        """A replica is gone: whom it held begins anew, before those who wait."""
        replica.alive = False
        self.replicas.remove(replica)
        held = [*replica.active, *replica.joining, *replica.waiting]
        for request in held:
            request.lost += max(0, request.rows - request.left) if request.left else 0
            request.left = 0
        for request in reversed(held):
            self._route(request, first=True)

    def backlog(self) -> float:
        """Entries x rows that wait for a seat."""
        waiting = [self.queue, *(replica.waiting for replica in self.replicas)]
        return sum(request.rows * request.entries for queue in waiting for request in queue)

    def _arrive(self, request: Request) -> None:
        self._route(request)

    def _route(self, request: Request, first: bool = False) -> None:
        if self.routing == "shared":
            replica = self._with_room()
            if replica is None:
                (self.queue.appendleft if first else self.queue.append)(request)
                return
        else:
            few = min(2 if self.routing == "two" else 1, len(self.replicas))
            replica = min(self.random.sample(self.replicas, few), key=lambda one: one.load)
        (replica.waiting.appendleft if first else replica.waiting.append)(request)
        self._noted(replica)
        self._step(replica)

    def _with_room(self) -> Replica | None:
        """The replica with the fewest seats taken; None where all are full."""
        while self._free:
            load, _, replica = self._free[0]
            if replica.alive and load == replica.load:
                return replica
            heapq.heappop(self._free)
        return None

    def _noted(self, replica: Replica) -> None:
        if self.routing == "shared" and replica.load < self.seats:
            heapq.heappush(self._free, (replica.load, replica.number, replica))

    def _admit(self, replica: Replica) -> None:
        """Free seats are taken, from its own queue or the shared one."""
        stay = len([request for request in replica.active if request.left > 1])
        for queue in (replica.waiting, self.queue):
            if queue is self.queue and not self.ahead:
                stay = len(replica.active)
            while queue and stay + len(replica.joining) < self.seats:
                request = queue.popleft()
                request.left = request.rows + 1
                replica.joining.append(request)
        self._noted(replica)

    def _step(self, replica: Replica) -> None:
        """Begins a row where none runs and somebody may sit."""
        if replica.active:
            return
        self._admit(replica)
        if replica.joining:
            self._begin(replica)

    def _begin(self, replica: Replica) -> None:
        for request in replica.joining:
            if request.started < 0:
                request.started = self.now
        called = sum([request.entries for request in replica.active])
        replica.active += replica.joining
        replica.joining = []
        took = self.row_s(called) if called else 0.0
        replica.busy += took
        self.at(self.now + took, self._ended, replica)

    def _ended(self, replica: Replica) -> None:
        """A row is done."""
        if not replica.alive:
            return
        stay = []
        for request in replica.active:
            request.left -= 1
            if request.left:
                stay.append(request)
            else:
                request.done = self.now
                self.done.append(request)
        replica.active = stay
        self._admit(replica)
        if replica.active or replica.joining:
            self._begin(replica)


def poisson(
    rate: float, draw: Callable[[random.Random], tuple[int, float]], count: int, seed: int = 0
):
    """`count` requests at the times of a Poisson process; `draw` gives the rows and entries of each."""
    made, now = random.Random(seed), 0.0
    for _ in range(count):
        now += made.expovariate(rate)
        yield Request(now, *draw(made))


def quantile(values: list[float], q: float) -> float:
    """The value below which a share q lies."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]
