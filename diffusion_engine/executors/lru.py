"""Values under a budget of bytes: the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A mapping whose values have sizes.

    budget  bytes that all values may take together
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """The value, which is now the most recently used; None where there is none."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: K, value: V, size: int) -> bool:
        """Keeps a value, or its new size, and drops others until all fit. False, and the value is
        dropped too, where it alone is over the budget."""
        self._kept[key] = (value, size)
        self._kept.move_to_end(key)
        while self.bytes > self.budget and len(self._kept) > 1:
            self._kept.popitem(last=False)
        if self.bytes > self.budget:
            del self._kept[key]
            return False
        return True

    def keep_only(self, key: K) -> None:
        """Drops every other value."""
        for other in [k for k in self._kept if k != key]:
            del self._kept[other]

    def drop(self, key: K) -> None:
        """Drops a value, where it is kept."""
        self._kept.pop(key, None)

    def __iter__(self) -> Iterator[K]:
        """The keys, least recently used first."""
        return iter(list(self._kept))
