"""Which entry of the network's batch belongs to which branch of which seat. Host only, int arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IDLE, CALLLESS = 0, 1  # kinds of a seat without a row, and of a row that calls nothing


@dataclass(frozen=True, eq=False, slots=True)
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
        self.seats, self._absent = seats, branches * seats
        self._known: dict[tuple[int, ...], int] = {}
        self._calls = np.zeros((2, branches), bool)
        self._dst = np.full((2, entries), self._absent, np.intp)
        self._src = np.full((2, outputs), self._absent, np.intp)
        self._seat = np.arange(seats, dtype=np.intp)[:, None]
        self._numbers = np.arange(self._absent, dtype=np.int32)

    def of(self, branches: tuple[int, ...]) -> int:
        """The kind of a row with these branches, one for each output."""
        if not branches:
            return CALLLESS
        if branches not in self._known:
            self._known[branches] = len(self._calls)
            calls = np.zeros((1, self._calls.shape[1]), bool)
            calls[0, list(branches)] = True
            self._calls = np.concatenate([self._calls, calls])
            self._dst = self._with(self._dst, sorted(set(branches)))
            self._src = self._with(self._src, branches)
        return self._known[branches]

    def _with(self, table: np.ndarray, branches: tuple[int, ...] | list[int]) -> np.ndarray:
        row = np.full((1, table.shape[1]), self._absent, np.intp)
        row[0, : len(branches)] = np.multiply(branches, self.seats)
        return np.concatenate([table, row])

    def packing(self, kinds: np.ndarray) -> Packing:
        """The entries of seats [S] whose rows are of these kinds."""
        places = np.flatnonzero(self._calls[kinds].T)
        entry = np.full(self._absent + self.seats, -1, np.int32)
        entry[places] = self._numbers[: len(places)]
        dst, src = self._dst[kinds], self._src[kinds]
        dst += self._seat
        src += self._seat
        return Packing(places, entry[dst], entry[src])


def bucket(count: int) -> int:
    """The size that `count` is padded to: four sizes an octave, so that at most a fifth is padding
    beyond 8 (1 to 8, 10, 12, 14, 16, 20, ...)."""
    step = max(1, 1 << max(0, (count - 1).bit_length() - 3))
    return -(-count // step) * step
