"""The calls that a lane's samples met: their sizes, and the places there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from ..executors.placed import Placed

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


Met = tuple[Way, tuple[int, ...]]
ONE = Way(1)


def alone(branches: Sequence[Sequence[int]]) -> Runs:
    """The runs of a sample all of whose entries have the bits of calls of one, by its rows' branches."""
    return _runs(_alone(own) for own in branches if own)


class Record:
    """The rows of a lane, as far back as a sample that sits there began, in whose calls the bits of an entry
    are not known to be those of the entry alone."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[Placed, Way]] = {}
        self._next = 0  # number of the row to come
        self._since: dict[int, int] = {}  # of each seat, the number of its sample's row 0
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def sit(self, seat: int) -> None:
        """A sample begins with the next row."""
        self._since[seat] = self._next

    def leave(self, seat: int) -> None:
        """Its seat is free."""
        self._since.pop(seat, None)
        if self._rows and (len(self._rows) > KEPT or not self._since):
            low = min(self._since.values(), default=self._next)
            self._rows = {number: row for number, row in self._rows.items() if number >= low}

    def skip(self) -> None:
        """A row was done whose call had no part in the bits."""
        self._next += 1

    def add(self, packing: Placed, way: Way) -> None:
        """A row was done."""
        self._rows[self._next] = packing, way
        self._next += 1

    def of(self, seat: int, rows: Sequence[Sequence[int]]) -> Runs | None:
        """The runs of the sample that is done, as Recipe.calls has them; None where no call had a part in its
        bits.

        rows  the branches that each of its rows called
        """
        first = self._since[seat]
        if not self._rows or next(reversed(self._rows)) < first:
            return None
        met: list[Met] = []
        for number, branches in enumerate(rows, first):
            if branches:
                row = self._rows.get(number)
                met.append(_alone(branches) if row is None else (row[1], row[0].of(seat)))
        if len(self._known) > KNOWN:
            self._known.clear()
        return tuple([self._known.setdefault(run, run) for run in _runs(met)])


def _alone(branches: Sequence[int]) -> Met:
    return ONE, (0,) * len({*branches})


def _runs(met: Iterable[Met]) -> Runs:
    return tuple([(len(list(same)), *way.places(own)) for (way, own), same in groupby(met)])
