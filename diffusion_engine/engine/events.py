"""What becomes of a request, told to who reads it; nobody who reads slowly holds the engine up."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition
from typing import Literal

from torch import Tensor

Kind = Literal["queued", "started", "row", "preview", "done", "cancelled", "failed"]
LAST = ("done", "cancelled", "failed")
LOSSY = ("row", "preview")


@dataclass(frozen=True, eq=False, slots=True)
class Event:
    """Something that became of a request.

    kind      queued; started, when its first sample takes a seat; row, when one of its samples has done a
              row; preview, a row with the estimate of x0; and how it ended: done, cancelled or failed
    sample    which of the request's samples, of rows and previews
    row       of its plan, 0 for the draw of the prior
    rows      how many its plan has
    denoised  [*shape], a copy; of previews
    """

    kind: Kind
    sample: int = 0
    row: int = 0
    rows: int = 0
    denoised: Tensor | None = None


class Events(Iterator[Event], AsyncIterator[Event]):
    """The events of a request, for one reader, in a `for` or an `async for`.

    room   how many rows and previews wait at most; the oldest give way to newer ones
    leave  called when the reader has had enough, by `close` or at the end of a `with`
    """

    def __init__(self, room: int, leave: Callable[[Events], None]) -> None:
        self._room, self._leave = room, leave
        self._waiting: deque[Event] = deque()
        self._lossy = 0
        self._told = self._ended = False  # whether the end is here, whether it was read
        self._arrived = Condition()
        self._wake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def put(self, event: Event) -> None:
        """Of the engine: never waits. After the end nothing comes."""
        with self._arrived:
            if self._told:
                return
            self._told = event.kind in LAST
            if event.kind in LOSSY:
                if not self._room:
                    return
                if self._lossy == self._room:
                    self._waiting.remove(next(e for e in self._waiting if e.kind in LOSSY))
                else:
                    self._lossy += 1
            self._waiting.append(event)
            self._notify()

    def close(self) -> None:
        """Reads no more, so that the engine makes no previews for it; the request goes on."""
        self._leave(self)
        with self._arrived:
            self._waiting.clear()
            self._lossy, self._told, self._ended = 0, True, True
            self._notify()

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _notify(self) -> None:
        self._arrived.notify_all()
        if self._wake is not None:
            loop, arrived = self._wake
            with suppress(RuntimeError):  # the reader's loop is closed
                loop.call_soon_threadsafe(arrived.set)

    def __iter__(self) -> Events:
        return self

    def __next__(self) -> Event:
        with self._arrived:
            while not self._waiting and not self._ended:
                self._arrived.wait()
            if (event := self._take()) is None:
                raise StopIteration
            return event

    def __aiter__(self) -> Events:
        return self

    async def __anext__(self) -> Event:
        with self._arrived:
            if self._wake is None:
                self._wake = asyncio.get_running_loop(), asyncio.Event()
            arrived = self._wake[1]
        while True:
            with self._arrived:
                arrived.clear()
                ended, event = self._ended, self._take()
            if event is not None:
                return event
            if ended:
                raise StopAsyncIteration
            await arrived.wait()

    def _take(self) -> Event | None:
        if not self._waiting:
            return None
        event = self._waiting.popleft()
        self._lossy -= event.kind in LOSSY
        self._ended = event.kind in LAST
        return event
