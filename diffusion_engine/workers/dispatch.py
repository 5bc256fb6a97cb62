"""`Dispatch`: which request goes to which worker, and when; and which of them ended one.

Who of the requests at a worker ended it is not known, and often it was none. They are made again together;
those that come to their last try are suspects, each of which has a worker to itself until it is done: who is
innocent is done, and who is not ends one more alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence

from .errors import WorkerLost
from .keeper import Keeper
from .quarantine import Quarantine, recipe
from .queue import Queue
from .request import Request

KNOWN = 4096  # recipes that need not be looked at again


class Dispatch:
    """What waits for workers.

    keepers     of the workers
    retries     how often a request is made again
    quarantine  what is refused
    aging       seconds in the queue that raise a priority by one
    """

    def __init__(
        self, keepers: Sequence[Keeper], retries: int, quarantine: Quarantine, aging: float
    ) -> None:
        self._keepers, self._retries, self._quarantine = keepers, retries, quarantine
        self._queue: Queue[Request] = Queue(aging)
        self._suspects: deque[Request] = deque()
        self._accused: Counter[bytes] = Counter()  # the recipes of suspects, wherever they are
        # Rows and cost, by recipes that were looked at.
        self._known: dict[bytes, tuple[int, int]] = {}

    @property
    def waiting(self) -> int:
        return len(self._queue) + len(self._suspects)

    def add(self, request: Request) -> None:
        """A request came: it is run where there is room, else looked at, to wait."""
        keeper = None if self.waiting or self._accused else self._free(request)
        if keeper is not None:
            keeper.run(request)
        elif not request.asked.tensors and (known := self._known.get(recipe(request.asked))):
            request.looked(*known)
            self.looked(request)
        elif looks := [one for one in self._keepers if one.ready]:
            min(looks, key=lambda one: one.cost).check(request)
        else:  # it is looked at when it is run
            self._queue.put(request, _now())

    def looked(self, request: Request) -> None:
        """It suits its network, as a worker found: it waits."""
        if request.ended:
            return
        if not request.asked.tensors:  # whose values count, too
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[recipe(request.asked)] = request.rows, request.cost
        self._queue.put(request, _now())
        self.pump()

    def leave(self, request: Request) -> None:
        """It has ended."""
        if request.accused:
            self._accused -= Counter([recipe(request.asked)])
        if request.keeper is None:
            self._queue.remove(request)
            if request in self._suspects:
                self._suspects.remove(request)

    def pump(self) -> None:
        """Sends to workers what they have room for."""
        while True:
            self._try_suspects()
            if (request := self._queue.peek(_now())) is None:
                return
            if self._accused and recipe(request.asked) in self._accused:
                self._queue.pop(_now())
                self._suspect(request, False)
            elif (keeper := self._free(request)) is not None:
                self._queue.pop(_now())
                keeper.run(request)
            else:
                return

    def _try_suspects(self) -> None:
        """Each on an idle worker, which nobody else is sent to."""
        idle = deque(one for one in self._keepers if one.ready and not one.running)
        while self._suspects and idle:
            keeper = idle.popleft()
            keeper.run(self._suspects.popleft())
            keeper.alone = True

    def lost(self, keeper: Keeper) -> None:
        """The worker of a keeper is gone."""
        alone = keeper.alone
        for request in keeper.take():
            if request.ended:
                continue
            request.deaths += 1
            if request.deaths > self._retries:
                self._condemn(request)
                continue
            request.restart()
            if alone or request.deaths == self._retries:
                self._suspect(request, alone)
            else:
                self._queue.put(request, _now())
        self.pump()

    def _suspect(self, request: Request, first: bool) -> None:
        """It gets a worker to itself; at once, so that those like it need not be tried, where it had one."""
        if not request.accused:
            request.accused = True
            self._accused[recipe(request.asked)] += 1
        if first:
            self._suspects.appendleft(request)
        else:
            self._suspects.append(request)

    def end(self, reason: str) -> None:
        """No worker will come any more."""
        for request in [*self._queue.requests(), *self._suspects]:
            request.fail(WorkerLost(reason))

    def _condemn(self, request: Request) -> None:
        """It ended every worker that it was at: it fails, and so does what is like it."""
        self._quarantine.put(request.asked)
        request.fail(
            WorkerLost(
                f"the {request.deaths} workers that made the request were lost, the last of them with "
                "nothing else to do; ask for something else"
            )
        )
        for other in [*self._queue.requests(), *self._suspects]:
            if (error := self._quarantine.objection(other.asked)) is not None:
                other.fail(error)

    def _free(self, request: Request) -> Keeper | None:
        """The worker for a request: of those that have room the one with the least to do. While suspects
        wait, one is kept free for them."""
        ready = sorted((one for one in self._keepers if one.ready), key=lambda one: one.cost)
        if self._suspects:
            ready = ready[1:]
        return next((one for one in ready if one.room(request)), None)


def _now() -> float:
    return asyncio.get_running_loop().time()
