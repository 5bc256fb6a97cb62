"""Which entry of the network's batch belongs to which branch of which sample. Host only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Packing:
    """The entries of one batched call: entry i serves branch `branch[i]` of sample `sample[i]`.

    needs  for each sample the branch of every output of its row, () where it makes no call

    Entries are ordered by branch, then by sample.
    """

    needs: tuple[tuple[int, ...], ...]

    @cached_property
    def entries(self) -> list[tuple[int, int]]:
        """(branch, sample) of every entry."""
        return sorted({(branch, b) for b, need in enumerate(self.needs) for branch in need})

    @property
    def count(self) -> int:
        return len(self.entries)

    def src(self, outputs: int) -> np.ndarray:
        """[B, outputs] int32: the entry of each output, -1 where a row has fewer."""
        where = {entry: i for i, entry in enumerate(self.entries)}
        table = np.full((len(self.needs), outputs), -1, np.int32)
        for b, need in enumerate(self.needs):
            table[b, : len(need)] = [where[branch, b] for branch in need]
        return table

    def dst(self, entries: int) -> np.ndarray:
        """[B, entries] int32: the entries each sample fills, -1 beyond them."""
        table = np.full((len(self.needs), entries), -1, np.int32)
        filled = [0] * len(self.needs)
        for i, (_, b) in enumerate(self.entries):
            table[b, filled[b]] = i
            filled[b] += 1
        return table
