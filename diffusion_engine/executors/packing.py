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
    def _hash(self) -> int:
        return hash(self.needs)

    def __hash__(self) -> int:  # looked up for every row, and hashing the needs takes a while
        return self._hash

    @cached_property
    def entries(self) -> list[tuple[int, int]]:
        """(branch, sample) of every entry."""
        return sorted({(branch, b) for b, need in enumerate(self.needs) for branch in need})

    @property
    def count(self) -> int:
        return len(self.entries)

    def src(self, samples: int, outputs: int) -> np.ndarray:
        """[samples, outputs] int32: the entry of each output, -1 where a row has fewer."""
        where = {entry: i for i, entry in enumerate(self.entries)}
        table = np.full((samples, outputs), -1, np.int32)
        for b, need in enumerate(self.needs):
            table[b, : len(need)] = [where[branch, b] for branch in need]
        return table

    def dst(self, samples: int, entries: int) -> np.ndarray:
        """[samples, entries] int32: the entries each sample fills, -1 beyond them."""
        table = np.full((samples, entries), -1, np.int32)
        filled = [0] * len(self.needs)
        for i, (_, b) in enumerate(self.entries):
            table[b, filled[b]] = i
            filled[b] += 1
        return table


def bucket(count: int) -> int:
    """The size that `count` is padded to: four sizes an octave, so that at most a fifth is padding
    beyond 8 (1 to 8, 10, 12, 14, 16, 20, ...)."""
    step = max(1, 1 << max(0, (count - 1).bit_length() - 3))
    return -(-count // step) * step
