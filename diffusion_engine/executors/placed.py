"""Packings where the step reads them, kept for seats that come to the same again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .packing import Kinds

PACKINGS = 256

Table = np.ndarray | Tensor


@dataclass(eq=False, slots=True)
class Placed:
    """A packing (packing.py): tensors of the device, or arrays where the step reads the host's memory.

    entries  [seats, G] those of each seat, as dst has them, on the host
    """

    count: int
    dst: Table
    src: Table
    places: Table
    entries: np.ndarray
    _by_seat: list[tuple[int, ...]] | None = None
    _seats: int | None = None

    @property
    def seats(self) -> int:
        """How many have entries in the call."""
        if self._seats is None:
            self._seats = int((self.entries[:, 0] >= 0).sum())
        return self._seats

    def of(self, seat: int) -> tuple[int, ...]:
        """The entries of the call that are a seat's, by branch."""
        if self._by_seat is None:
            table = self.entries.tolist()
            self._by_seat = [tuple([entry for entry in own if entry >= 0]) for own in table]
        return self._by_seat[seat]


class Packings:
    """Those of the last PACKINGS states that seats came to, by the kinds of their rows.

    device  where they are copied to; None leaves them where they are made
    """

    def __init__(self, kinds: Kinds, device: torch.device | None) -> None:
        self._kinds, self._device = kinds, device
        self._kept: dict[bytes, Placed] = {}

    def of(self, kinds: np.ndarray) -> Placed:
        """That of seats whose rows are of these kinds; equal ones are one object while it is kept."""
        key = kinds.tobytes()
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= PACKINGS:
                del self._kept[next(iter(self._kept))]
            found = self._kept[key] = self._placed(kinds)
        return found

    def _placed(self, kinds: np.ndarray) -> Placed:
        p = self._kinds.packing(kinds)
        if self._device is None:
            return Placed(p.count, p.dst, p.src, p.places, p.dst)
        dst, src, places = map(self._upload, (p.dst, p.src, p.places))
        return Placed(p.count, dst, src, places, p.dst)

    def _upload(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)

    @property
    def bytes(self) -> int:
        tables = (t for p in list(self._kept.values()) for t in (p.dst, p.src, p.places))
        return sum(t.nbytes for t in tables)
