"""The calls that a lane's samples met: their sizes, and the places there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ..executors.placed import Placed
from ..plan import Plan

KEPT = 256  # rows that are kept before those nobody needs are dropped
KNOWN = 1 << 16  # runs that samples share

Runs = tuple[tuple[int, ...], ...]


class Way(NamedTuple):
    """How the entries of a row were called.

    size   of the call; 0 where each sample was called without the others
    most   entries of each of its parts, where it was made in parts; 0 of a whole
    total  entries of all parts together
    """

    size: int
    most: int = 0
    total: int = 0

    def places(self, entries: Sequence[int]) -> Iterator[int]:
        """(size, place, ...) of the entries of a sample."""
        for i, entry in enumerate(entries):
            if not self.size:
                yield from (len(entries), i)
            elif self.most:
                low = entry - entry % self.most
                yield from (min(self.most, self.total - low), entry - low)
            else:
                yield from (self.size, entry)


class Record:
    """The rows of a lane, as far back as a sample that sits there began."""

    def __init__(self) -> None:
        self._rows: list[tuple[Placed, Way]] = []
        self._first = 0  # number of the first that is kept
        self._since: dict[int, int] = {}  # of each seat, the number of its sample's row 0
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def sit(self, seat: int) -> None:
        """A sample begins with the next row."""
        self._since[seat] = self._first + len(self._rows)

    def leave(self, seat: int) -> None:
        """Its seat is free."""
        self._since.pop(seat, None)
        if len(self._rows) > KEPT or not self._since:
            low = min(self._since.values(), default=self._first + len(self._rows))
            del self._rows[: low - self._first]
            self._first = low

    def add(self, packing: Placed, way: Way) -> None:
        """A row was done."""
        self._rows.append((packing, way))

    def of(self, seat: int, plan: Plan) -> Runs:
        """The runs of the sample that is done, as Recipe.calls has them."""
        first = self._since[seat] - self._first
        rows = zip(self._rows[first:], plan.branches, strict=False)
        met = [(way, packing.of(seat)) for (packing, way), branches in rows if branches]
        if len(self._known) > KNOWN:
            self._known.clear()
        made = ((len(list(same)), *way.places(own)) for (way, own), same in groupby(met))
        return tuple([self._known.setdefault(run, run) for run in made])
