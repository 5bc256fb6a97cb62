"""Values under a budget of bytes: the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from threading import RLock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A mapping whose values have sizes. Threads may share it; a copy of it is empty.

    budget  bytes, or whatever sizes count, that all values may take together
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = RLock()

    def __reduce__(self) -> tuple:
        """A copy, here or in another process, begins empty."""
        return type(self), (self.budget,)

    @property
    def bytes(self) -> int:
        with self._lock:
            return sum(size for _, size in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[K]:
        """The keys, least recently used first."""
        with self._lock:
            return iter(list(self._kept))

    def get(self, key: K) -> V | None:
        """The value, which is now the most recently used; None where there is none."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def take(self, key: K) -> V | None:
        """The value, which is no longer kept; None where there is none."""
        with self._lock:
            return self._kept.pop(key, (None, 0))[0]

    def put(self, key: K, value: V, size: int) -> bool:
        """Keeps a value, or its new size, and drops others until all fit. False where it alone is over
        the budget: it is then not kept, and the others stay."""
        with self._lock:
            self._kept.pop(key, None)
            if size > self.budget:
                return False
            self._kept[key] = (value, size)
            while self.bytes > self.budget:
                self._kept.popitem(last=False)
            return True

    def keep_only(self, key: K) -> None:
        """Drops every other value."""
        with self._lock:
            for other in [k for k in self._kept if k != key]:
                del self._kept[other]
