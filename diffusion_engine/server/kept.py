"""The requests that a server knows: those that wait and run, how others ended, and results for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..workers.messages import About, Asked, Made, Told
from ..workers.service import Running
from .refused import Refused
from .settings import Settings

ENDED = 1024  # requests that clients waited for, whose end is known
SELF = 4096  # bytes of one that was left here, beside its samples
KIND = "request"


class Entry:
    """A request that was accepted.

    created  seconds since 1970, for people
    given    bytes of the tensors that it brought
    left     whether its client did not wait for it, and may ask later
    made     its samples, where they are kept; error: why there are none
    """

    def __init__(self, running: Running, asked: Asked, about: About) -> None:
        self._running: Running | None = running
        self.id, self.rows, self.cost = running.id, running.rows, running.cost
        self.about, self.n, self.owner = about, len(asked.seeds), asked.key
        self.created = int(time.time())
        self.given = sum(array.nbytes for array in asked.tensors.values())
        self.done_rows = 0
        self.left = False
        self.made: Made | None = None
        self.error: Refused | None = None
        self.ended_at = 0.0
        self._status = running.status

    @property
    def running(self) -> Running:
        """The service's own, until the end."""
        assert self._running is not None, "the request has ended"
        return self._running

    @property
    def status(self) -> str:
        return self._status if self._running is None else self._running.status

    def cancel(self, reason: str) -> None:
        """Gives it up, where it has not ended."""
        if self._running is not None:
            self._running.cancel(reason)

    def end(self, now: float) -> None:
        """Lets go of the service's own, which holds the samples, too."""
        self._status, self._running, self.ended_at = self.status, None, now

    @property
    def bytes(self) -> int:
        """Of what is kept of it."""
        made = (self.made.samples, self.made.latents) if self.made is not None else ()
        return self.left * SELF + sum(array.nbytes for array in made if array is not None)

    def saw(self, told: Told) -> None:
        """Counts the rows of an event; a request that is made again begins again."""
        if told.kind == "restarted":
            self.done_rows = 0
        self.done_rows += told.kind in ("row", "preview")

    def described(self) -> dict[str, Any]:
        """As GET /v1/requests/{id} has it."""
        made: dict[str, Any] = {
            "id": self.id, "object": KIND, "status": self.status, "model": self.about.name,
            "created": self.created, "n": self.n, "rows": self.rows, "cost": self.cost,
            "done_rows": self.done_rows,
        }  # fmt: skip
        return made if self.error is None else made | self.error.content()


class Requests:
    """By id.

    clock  seconds that never go back
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._bytes, self._clock = settings.keep_seconds, settings.keep_bytes, clock
        self.open: dict[str, Entry] = {}
        # The first ended first: those that clients waited for, and those that were left here.
        self._ended: dict[str, Entry] = {}
        self._left: dict[str, Entry] = {}
        self._held = 0

    def add(self, entry: Entry) -> None:
        self.open[entry.id] = entry

    def end(self, entry: Entry) -> None:
        """Of one that is done, or was given up."""
        if self.open.pop(entry.id, None) is None:
            return
        entry.end(self._clock())
        if entry.made is not None and entry.bytes > self._bytes:
            entry.error = Refused(
                413,
                f"its samples take {entry.bytes} bytes, of which {self._bytes} are kept; wait for them",
            )
            entry.made = None
        (self._left if entry.left else self._ended)[entry.id] = entry
        self._held += entry.bytes
        self.sweep()

    def find(self, name: str, owner: str) -> Entry:
        """Raises Refused where there is none, or it is another's."""
        self.sweep()
        entry = self.open.get(name) or self._ended.get(name) or self._left.get(name)
        if entry is None or entry.owner != owner:
            raise Refused(
                404,
                f"there is no request {name[:80]!r}; ended ones are known for a while",
                "not_found",
            )
        return entry

    def drop(self, entry: Entry) -> None:
        """Forgets one that has ended."""
        if self._ended.pop(entry.id, None) or self._left.pop(entry.id, None):
            self._held -= entry.bytes

    def sweep(self) -> None:
        """Forgets what is old, or too much."""
        self._forget(self._ended, lambda: len(self._ended) > ENDED)
        self._forget(self._left, lambda: self._held > self._bytes)

    def _forget(self, ended: dict[str, Entry], much: Callable[[], bool]) -> None:
        before = self._clock() - self._seconds
        while ended and ((oldest := next(iter(ended.values()))).ended_at < before or much()):
            self.drop(oldest)
