"""Which entry of the network's batch belongs to which branch of which seat. Host only, int arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

IDLE, CALLLESS = 0, 1  # kinds of a seat without a row, and of a row that calls nothing


@dataclass(eq=False, slots=True)
class Packing:
    """The entries of one batched call, by branch, then by seat.

    places  [count] of each entry, branch x seats + seat
    dst     [seats, G] int32, the entries that a seat fills; -1 beyond them
    src     [seats, J] int32, the entry of each output of a seat's row; -1 where it has fewer
    """

    places: np.ndarray
    dst: np.ndarray
    src: np.ndarray

    @property
    def count(self) -> int:
        return len(self.places)


class Kinds:
    """What rows ask of a call: rows with the same branches are of one kind, a small number.

    `packing` makes the entries of seats whose rows have given kinds: some ten operations on arrays of
    [seats, entries], however many samples came or went.
    """

    def __init__(self, seats: int, branches: int, entries: int, outputs: int) -> None:
        self.seats, self._fills, self._absent = seats, entries, branches * seats
        self._known: dict[tuple[int, ...], int] = {}
        self._calls = np.zeros((branches, 2), bool)
        self._looked_up = np.full((2, entries + outputs), self._absent, np.intp)
        self._seat = np.arange(seats, dtype=np.intp)[:, None]
        self._numbers = np.arange(self._absent, dtype=np.int32)

    def of(self, branches: tuple[int, ...]) -> int:
        """The kind of a row with these branches, one for each output."""
        if not branches:
            return CALLLESS
        if branches not in self._known:
            self._known[branches] = self._calls.shape[1]
            calls = np.zeros((len(self._calls), 1), bool)
            calls[list(branches)] = True
            self._calls = np.concatenate([self._calls, calls], axis=1)
            row = np.full((1, self._looked_up.shape[1]), self._absent, np.intp)
            fills = sorted(set(branches))
            row[0, : len(fills)] = np.multiply(fills, self.seats)
            row[0, self._fills : self._fills + len(branches)] = np.multiply(branches, self.seats)
            self._looked_up = np.concatenate([self._looked_up, row])
        return self._known[branches]

    def packing(self, kinds: np.ndarray) -> Packing:
        """The entries of seats [S] whose rows are of these kinds."""
        kinds = kinds.astype(np.intp)
        (places,) = self._calls.take(kinds, axis=1).ravel().nonzero()
        entry = np.full(self._absent + self.seats, -1, np.int32)
        entry[places] = self._numbers[: len(places)]
        where = self._looked_up.take(kinds, axis=0)
        where += self._seat
        found = entry.take(where)
        return Packing(places, found[:, : self._fills], found[:, self._fills :])


@lru_cache(4096)
def bucket(count: int) -> int:
    """The size that `count` is padded to: four sizes an octave, so that at most a fifth is padding
    beyond 8 (1 to 8, 10, 12, 14, 16, 20, ...)."""
    step = max(1, 1 << max(0, (count - 1).bit_length() - 3))
    return -(-count // step) * step
