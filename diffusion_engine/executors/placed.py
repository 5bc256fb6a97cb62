"""Packings on the device, made when seats come to one and kept for those that come to it again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .packing import Kinds

PACKINGS = 256


@dataclass(frozen=True, eq=False, slots=True)
class Placed:
    """A packing (packing.py) on the device; `samples` is the seat of each entry, for latents."""

    count: int
    dst: Tensor
    src: Tensor
    places: Tensor
    samples: Tensor


class Packings:
    """Those of the last PACKINGS states that seats came to, by the kinds of their rows."""

    def __init__(self, kinds: Kinds, device: torch.device) -> None:
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
        packing = self._kinds.packing(kinds)
        arrays = (packing.dst, packing.src, packing.places, packing.places % self._kinds.seats)
        return Placed(packing.count, *map(self._upload, arrays))

    def _upload(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)

    @property
    def bytes(self) -> int:
        tables = (t for p in self._kept.values() for t in (p.dst, p.src, p.places, p.samples))
        return sum(t.nbytes for t in tables)
