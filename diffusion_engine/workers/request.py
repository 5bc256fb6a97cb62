"""`Request`: what the server holds of a request, from its submission to its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from .errors import GivenUp
from .messages import Asked, Made, Told

LOSSY = ("row", "preview")
ROOM = 64  # rows and previews that wait for who reads events
BYTES = 4 << 20  # of previews that wait: the last one is there, whatever its size
LAST = ("done", "cancelled", "failed")


class Reader:
    """The events of a request, for one who reads them.

    room  rows and previews that wait at most, the newest ones; of large previews fewer
    """

    def __init__(self, room: int) -> None:
        self._waiting: deque[Told] = deque()
        self._room, self._lossy, self._bytes = room, 0, 0
        self._arrived = asyncio.Event()

    def put(self, told: Told) -> None:
        self._waiting.append(told)
        self._count(told, 1)
        while self._lossy > self._room or (self._bytes > BYTES and self._lossy > 1):
            oldest = next(one for one in self._waiting if one.kind in LOSSY)
            self._waiting.remove(oldest)
            self._count(oldest, -1)
        self._arrived.set()

    async def get(self) -> Told:
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        told = self._waiting.popleft()
        self._count(told, -1)
        return told

    def _count(self, told: Told, by: int) -> None:
        self._lossy += by * (told.kind in LOSSY)
        self._bytes += by * (0 if told.denoised is None else told.denoised.nbytes)


class Request:
    """A request of the supervisor, as `service.Running` has it.

    asked     what it is
    on_read, on_cancel, on_end  called when somebody reads its events, when it is given up, with the reason,
              and when it has ended, whichever way
    arrived   when, on the loop's clock
    rows, cost  0 until a worker has looked at it
    deaths    of workers that it was at; accused: whether it may have ended them
    taken     done when a worker found that it suits its network, or an error
    keeper    of the worker that it is at
    """

    def __init__(
        self,
        asked: Asked,
        on_read: Callable[[Request], None],
        on_cancel: Callable[[Request, str], None],
        on_end: Callable[[Request], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.asked, self.id, self.arrived = asked, asked.id, loop.time()
        self.rows = self.cost = self.deaths = 0
        self.accused = False
        self.status = "queued"
        self.keeper: Any = None
        self.taken: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[Made] = loop.create_future()
        self._clock = loop.time
        self._on_read, self._on_cancel, self._on_end = on_read, on_cancel, on_end
        self._readers: list[Reader] = []
        self._kept: Reader | None = None  # of previews, for the first who reads
        if asked.preview > 0:
            self._kept = self._reader(ROOM)

    @property
    def key(self) -> str:
        return self.asked.key

    @property
    def priority(self) -> float:
        return self.asked.priority

    @property
    def samples(self) -> int:
        return len(self.asked.seeds)

    @property
    def ended(self) -> bool:
        return self._ended.done()

    @property
    def read(self) -> bool:
        """Whether somebody reads its events, or will read previews."""
        return bool(self._readers)

    async def result(self) -> Made:
        """The samples, when they are done. Raises ServiceError."""
        return await asyncio.shield(self._ended)

    async def events(self, room: int = ROOM) -> AsyncIterator[Told]:
        """What becomes of it, to its end."""
        reader, self._kept = self._kept or self._reader(room), None
        if reader in self._readers:
            self._on_read(self)
        try:
            while (told := await reader.get()).kind not in LAST:
                yield told
            yield told
        finally:
            if reader in self._readers:
                self._readers.remove(reader)

    def _reader(self, room: int) -> Reader:
        """A reader of what is to come, who knows what has been."""
        reader = Reader(room)
        reader.put(Told("queued"))
        if self.status != "queued":
            reader.put(Told("started"))
        if self.ended:
            reader.put(Told(self.status))
        else:
            self._readers.append(reader)
        return reader

    def cancel(self, reason: str) -> bool:
        """Gives it up. False where it has ended already."""
        if self.ended:
            return False
        self._on_cancel(self, reason)
        self.fail(GivenUp(f"the request was given up: {reason}"))
        return True

    def left(self) -> Asked:
        """What is asked for now: a deadline is so many seconds from here."""
        if self.asked.deadline is None:
            return self.asked
        left = max(1e-3, self.asked.deadline - (self._clock() - self.arrived))
        return msgspec.structs.replace(self.asked, deadline=left)

    def started(self) -> None:
        """It has its first seat."""
        if not self.ended:
            self.heard(Told("started"))

    def looked(self, rows: int, cost: int) -> None:
        """A worker found that it suits."""
        self.rows, self.cost = rows, cost
        if not self.taken.done():
            self.taken.set_result(None)

    def heard(self, told: Told) -> None:
        """An event of it; a start may be told twice, by the connection of beats, too."""
        if told.kind == "started":
            if self.status == "running":
                return
            self.status = "running"
        for reader in self._readers:
            reader.put(told)

    def restart(self) -> None:
        """Its worker is gone, and it is made again."""
        self.status, self.keeper = "queued", None
        self.heard(Told("restarted"))

    def done(self, made: Made) -> None:
        """It is done; seconds are those since its submission here."""
        self.started()
        seconds = self._clock() - self.arrived
        queued = seconds - (made.seconds - made.queued)
        self.status = "done"
        self._ended.set_result(msgspec.structs.replace(made, seconds=seconds, queued=queued))
        self._tell_end()

    def fail(self, error: Exception) -> None:
        """It has ended without samples. Nothing where it has ended already."""
        if self.ended:
            return
        self.status = "cancelled" if isinstance(error, GivenUp) else "failed"
        self._ended.set_exception(error)
        self._ended.exception()  # nobody may wait for it
        if not self.taken.done():
            self.taken.set_exception(error)
            self.taken.exception()
        self._tell_end()

    def _tell_end(self) -> None:
        for reader in self._readers:
            reader.put(Told(self.status))
        self._readers = []
        self._on_end(self)
