"""`Pulse`: a worker's signs of life, from a thread of its own."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .frames import parts
from .wire import Beat

MEDIANS, LONGEST = 10.0, 3.0  # rows of the median length, and of the longest, that one may take
CALLS = 10  # of each entry of the largest batch: what a first row tries beside itself


class Pulse(threading.Thread):
    """Says every so many seconds what the engine does, to its end.

    sock      that nobody else writes to
    snapshot  of the engine, None before there is one
    statuses  of the requests, by their ids
    beat_s, hang_s, longer_s  as in wire.Begin
    """

    def __init__(
        self,
        sock: socket.socket,
        snapshot: Callable[[], dict[str, Any] | None],
        statuses: Callable[[], Mapping[str, str]],
        beat_s: float,
        hang_s: float,
        longer_s: float,
    ) -> None:
        super().__init__(name="pulse", daemon=True)
        self._sock, self._snapshot, self._statuses = sock, snapshot, statuses
        self._beat_s, self._hang_s, self._longer_s = beat_s, hang_s, longer_s
        self._done, self._since = None, time.monotonic()

    def run(self) -> None:
        while True:
            written = b"".join(map(bytes, parts(self.beat())))
            try:
                self._sock.sendall(written)
            except OSError:  # nobody is there to work for
                os._exit(0)
            time.sleep(self._beat_s)

    def beat(self) -> Beat:
        """What there is to say now."""
        engine = self._snapshot() or {}
        started = [name for name, status in self._statuses().items() if status != "queued"]
        return Beat(self._still(engine), self._limit(engine), started, engine)

    def _still(self, engine: Mapping[str, Any]) -> float:
        """Seconds since the engine did something, where it has something to do."""
        now = time.monotonic()
        done, busy = engine.get("rows"), engine.get("queued", 0) + engine.get("running", 0) > 0
        if done != self._done or not busy:
            self._done, self._since = done, now
        return now - self._since

    def _limit(self, engine: Mapping[str, Any]) -> float:
        """Seconds after which a row has taken too long."""
        rows = engine.get("row_s", {})
        median, longest = rows.get("p50") or 0.0, rows.get("p99") or 0.0
        limit = max(self._hang_s, MEDIANS * median, LONGEST * longest)
        if engine.get("fresh"):
            limit = max(limit, self._longer_s, CALLS * engine.get("seats", 0) * median)
        return limit
