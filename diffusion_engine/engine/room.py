"""`Room`: the bytes that networks and batches may take, and who goes when another needs some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..executors.buffers import Buffers
from ..executors.capacity import Capacity
from .host import Host
from .lane import Lane
from .metrics import Metrics


class Room:
    """Those that were not used for longest go first: batches in which nobody sits, networks without requests,
    and then networks whose turn it is not. Batches in which somebody sits stay.

    served     the networks
    max_bytes  of copies of weights that the engine made, packed ones too, and of batches
    metrics    where what takes time is counted
    """

    def __init__(self, served: Sequence[Host], max_bytes: int, metrics: Metrics) -> None:
        self._served, self._max, self._metrics = served, max_bytes, metrics

    @property
    def taken(self) -> int:
        return sum(served.bytes for served in self._served)

    def load(self, served: Host) -> None:
        """Sees to it that the weights of a network are in place."""
        if not served.weights.placed:
            self.make(served.weights.missing, keep=served)
            self._metrics.load_s.add(served.load())
        served.weights.start()

    def prepare(self, lane: Lane) -> None:
        """Sees to it that the weights that a lane runs on are in place."""
        served, weights = lane.served, lane.served.weights
        if weights.placed and not weights.switches(lane.adapter):  # in most rows: nothing is summed
            weights.start()
            return
        before = weights.held
        self.load(served)
        if weights.switches(lane.adapter):
            self._metrics.switch_s.add(weights.switch(lane.adapter))
            lane.batch.stages.renew()
        if weights.held > before:
            self.make(0, keep=served)

    def make(self, more: int, keep: Host) -> None:
        """Makes room for so many bytes of a network that stays."""
        if self._fits(more):
            return
        lanes = [lane for served in self._served for lane in served.lanes.values() if not lane.busy]
        for lane in sorted(lanes, key=lambda lane: lane.turned):
            lane.served.shut(lane)
            if self._fits(more):
                return
        others = [
            served
            for served in self._served
            if served is not keep and (served.weights.held or served.packed)
        ]
        for served in sorted(others, key=lambda served: (served.busy, served.turned)):
            served.weights.unload()
            for lane in served.lanes.values():
                lane.batch.stages.forget()
            if self._fits(more):
                return

    def objection(self, served: Host, capacity: Capacity | None = None) -> str | None:
        """Why a network, and a batch of it, cannot run even where nobody else is."""
        weights, batch = served.weights.size, 0
        if capacity is not None:
            batch = Buffers(replace(capacity, device=torch.device("meta"))).bytes
        if weights + batch <= self._max:
            return None
        of = f"the weights of {served.name!r} take {weights / 2**20:.1f} MiB"
        if capacity is not None:
            of += f" and a batch of {served.capacity} samples {batch / 2**20:.1f} MiB"
        most = f"max_bytes is {self._max / 2**20:.1f} MiB"
        return f"{of}, and {most}: give the engine more, or a smaller capacity"

    def _fits(self, more: int) -> bool:
        return self.taken + more <= self._max
