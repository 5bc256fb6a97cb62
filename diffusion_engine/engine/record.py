"""The calls that a lane's samples met: their sizes, and the places there."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain

from ..executors.placed import Placed
from ..plan import Plan
from ..sampler.buckets import runs

KEPT = 256  # rows that are kept before those nobody needs are dropped
KNOWN = 1 << 16  # runs that samples share

Runs = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """How the network was called for a row.

    packing  whose entries they were
    size     of the call
    most     entries of each of its parts, where it was made in parts; 0 of a whole
    apart    whether each sample was called without the others
    """

    packing: Placed
    size: int
    most: int = 0
    apart: bool = False
    _met: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def met(self, seat: int) -> tuple[int, ...]:
        """The (size, place, size, place, ...) of a seat's entries."""
        found = self._met.get(seat)
        if found is None:
            found = self._met[seat] = tuple(chain.from_iterable(self._places(seat)))
        return found

    def _places(self, seat: int) -> list[tuple[int, int]]:
        entries = self.packing.of(seat)
        if self.apart and not self.size:
            return [(len(entries), i) for i in range(len(entries))]
        if not self.most:
            return [(self.size, entry) for entry in entries]
        lows = [entry - entry % self.most for entry in entries]
        return [
            (min(self.most, self.packing.count - low), entry - low)
            for entry, low in zip(entries, lows, strict=True)
        ]


class Record:
    """The rows of a lane, as far back as a sample that sits there began."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._first = 0  # number of the first that is kept
        self._since: dict[int, int] = {}  # of each seat, the number of its sample's row 0
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}
        self._alike: dict[
            tuple[int, int, int, bool], Row
        ] = {}  # seats come to the same calls again

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

    def add(self, packing: Placed, size: int, most: int, apart: bool) -> None:
        """How the network was called for the row that was done, as Row has it."""
        key = id(packing), size, most, apart
        row = self._alike.get(key)
        if row is None:
            if len(self._alike) >= KEPT:
                self._alike.clear()
            row = self._alike[key] = Row(packing, size, most, apart)
        self._rows.append(row)

    def of(self, seat: int, plan: Plan) -> Runs:
        """The runs of the sample that is done, as Recipe.calls has them."""
        first = self._since[seat] - self._first
        rows = self._rows[first : first + len(plan.rows)]
        called = zip(rows, plan.branches, strict=True)
        met = [row.met(seat) for row, branches in called if branches]
        if len(self._known) > KNOWN:
            self._known.clear()
        return tuple(self._known.setdefault(key, key) for key in map(tuple, runs(met)))
