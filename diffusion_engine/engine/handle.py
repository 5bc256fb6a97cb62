"""`Handle`: what a caller holds of a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, InvalidStateError
from threading import Lock
from typing import Any, Literal

from .. import checks
from ..sampler.result import Result
from .errors import Cancelled
from .events import Event, Events

Status = Literal["queued", "running", "done", "cancelled", "failed"]
ROOM = 16  # rows and previews that wait for a reader


class Handle:
    """A request that the engine took; it ends as done, cancelled or failed. For any thread, and to await.

    rows     of the longest plan of its samples
    samples  how many were asked for
    build    makes the result, in the thread that asks for it
    slow     whether that takes long
    watched  whether somebody reads the events
    """

    def __init__(
        self, samples: int, rows: int, build: Callable[[], Result], slow: bool = False
    ) -> None:
        self.samples, self.rows, self._slow = samples, rows, slow
        self._build: Callable[[], Result] | None = build
        self._built = Lock()
        self._result: Result | None = None
        self._future: Future[None] = Future()
        self._started = False
        self._submitted = self._seated = self._over_at = time.monotonic()
        self.ended = False  # read in every row, where a look at the future would take its lock
        self._reason: str | None = None
        self._readers: tuple[Events, ...] = ()
        self.watched = False
        self._lock = Lock()
        self.on_cancel: Callable[[], None] = _nothing

    @property
    def status(self) -> Status:
        """queued, running, done, cancelled or failed."""
        future = self._future
        if not future.done():
            return "running" if self._started else "queued"
        if future.cancelled():
            return "cancelled"
        error = future.exception()
        return (
            "done" if error is None else "cancelled" if isinstance(error, Cancelled) else "failed"
        )

    @property
    def times(self) -> tuple[float, float]:
        """Of one that has ended, seconds from its submission to its first seat and to its end."""
        return self._seated - self._submitted, self._over_at - self._submitted

    def result(self, timeout: float | None = None) -> Result:
        """The samples, when they are done.

        timeout  seconds to wait; None waits as long as it takes
        Raises TimeoutError after that; Cancelled with the reason; NonFinite; or what the network raised.
        """
        try:
            self._future.result(timeout)
        except CancelledError:
            raise self._cancelled() from None
        return self._made()

    def __await__(self) -> Generator[Any, None, Result]:
        """The same as result(), without holding the loop; cancelling the task cancels the request."""
        return self._wait().__await__()

    async def _wait(self) -> Result:
        task = asyncio.current_task()
        before = 0 if task is None else task.cancelling()
        try:
            await asyncio.shield(asyncio.wrap_future(self._future))
        except asyncio.CancelledError:
            if task is None or task.cancelling() == before:
                raise self._cancelled() from None
            self.cancel("the task that awaited it was cancelled")
            raise
        return await asyncio.to_thread(self._made) if self._slow else self._made()

    def cancel(self, reason: str = "its caller cancelled it") -> bool:
        """Gives the request up: its seats are free at the next row. False where it has ended already.

        reason  what `result` says to who waits
        """
        if self._future.done():
            return self._future.cancelled()
        with self._lock:
            self._reason = self._reason or reason
        self._over_at = time.monotonic()
        if not self._future.cancel():
            return False
        self._over(False)()
        return True

    def events(self, room: int = ROOM) -> Events:
        """What becomes of the request, for a `for` or an `async for`, to its end.

        room  how many rows and previews wait for a slow reader, the newest ones; nothing else is lost
        """
        room = checks.whole("room", room, 0, "rows and previews that may wait")
        reader = Events(room, self._left)
        with self._lock:
            reader.put(Event("queued"))
            if self._started:
                reader.put(Event("started"))
            if self._future.done():
                reader.put(self._last())
            else:
                self._readers += (reader,)
                self.watched = True
        return reader

    def add_done_callback(self, told: Callable[[Handle], Any]) -> None:
        """Calls told(handle) when the request has ended, on the engine's thread or that of who cancels it.

        It may submit and close, and has to wait for nothing. What it raises is logged. Raises ValueError
        where it cannot be called.
        """
        if not callable(told):
            raise ValueError(f"told={checks.said(told)}: give a function of the handle")
        self._future.add_done_callback(lambda _: told(self))

    def start(self) -> None:
        """Of the engine: the first sample has its seat."""
        with self._lock:
            self._started = True
            self._seated = time.monotonic()
            if self._readers:
                self._tell(Event("started"))

    def tell(self, event: Event) -> None:
        """Of the engine: a row or a preview."""
        self._tell(event)

    def end(self, error: BaseException | None = None) -> bool:
        """Of the engine: the request is done, or failed. False where it was cancelled, and stays so."""
        self._over_at = time.monotonic()  # before anybody learns that it has ended
        try:
            if error is None:
                self._future.set_result(None)
            else:
                self._future.set_exception(error)
        except InvalidStateError:
            return False
        self._over(error is None)
        return True

    def _over(self, done: bool) -> Callable[[], None]:
        """Tells the readers how it ended and lets go of what is needed no more; what a cancel has to do."""
        with self._lock:
            self.ended = True
            readers, self._readers, self.watched = self._readers, (), False
            on_cancel, self.on_cancel = self.on_cancel, _nothing
            if not done:
                self._build = None
        for reader in readers:
            reader.put(self._last())
        return on_cancel

    def _left(self, reader: Events) -> None:
        with self._lock:
            self._readers = tuple(one for one in self._readers if one is not reader)
            self.watched = bool(self._readers)

    def _last(self) -> Event:
        status = self.status
        assert status != "queued" and status != "running"
        return Event(status)

    def _tell(self, event: Event) -> None:
        for reader in self._readers:
            reader.put(event)

    def _made(self) -> Result:
        with self._built:
            if self._result is None:
                assert self._build is not None
                self._result, self._build = self._build(), None
            return self._result

    def _cancelled(self) -> Cancelled:
        return Cancelled(f"the request was given up: {self._reason or 'its task was cancelled'}")


def _nothing() -> None:
    pass
