"""`Locks`: one for each key, there while somebody has it or waits for it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock, RLock
from typing import Any


class Locks:
    """Who wants the same key waits, who wants another does not."""

    def __init__(self) -> None:
        self._changing = Lock()
        self._wanted: dict[Hashable, tuple[Any, int]] = {}  # and by how many

    @contextmanager
    def of(self, key: Hashable) -> Iterator[None]:
        """The key's own lock, which a thread may take again that has it."""
        lock = self._want(key, 1)
        try:
            with lock:
                yield
        finally:
            self._want(key, -1)

    def _want(self, key: Hashable, more: int) -> Any:
        with self._changing:
            lock, users = self._wanted.pop(key, None) or (RLock(), 0)
            if users + more:
                self._wanted[key] = lock, users + more
            return lock
