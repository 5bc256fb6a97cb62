"""What an engine has done, counted."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import Any

from ..executors import Batch
from .handle import Status

# Seconds, four an octave from 10 us on: 100 buckets reach 300 s.
EDGES = tuple(1e-5 * 2 ** (i / 4) for i in range(100))


class Histogram:
    """Seconds in buckets whose edges are a fifth apart."""

    def __init__(self) -> None:
        self.counts, self.count, self.total = [0] * (len(EDGES) + 1), 0, 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(EDGES, seconds)] += 1
        self.count += 1
        self.total += seconds

    def quantile(self, q: float) -> float | None:
        """The upper edge of the bucket in which it lies; None where nothing was counted."""
        wanted, seen = q * self.count, 0
        for edge, count in zip(EDGES, self.counts, strict=False):
            seen += count
            if count and seen >= wanted:
                return edge
        return None

    def snapshot(self) -> dict[str, Any]:
        mean = self.total / self.count if self.count else None
        return {
            "count": self.count, "mean": mean,
            "p50": self.quantile(0.5), "p95": self.quantile(0.95), "p99": self.quantile(0.99),
            "edges": list(EDGES), "counts": list(self.counts),
        }  # fmt: skip


@dataclass(eq=False)
class Metrics:
    """Counters rise; histograms are of seconds.

    rows       steps of batches; seat_rows those of samples that called the network; called and padded are
               entries of its calls; captures those that were recorded for replays
    queued_s   from submission to the first seat; row_s of one step of a batch; total_s from submission to
               the end, of requests that are done; load_s of weights that come back to the device, switch_s
               of those of an adapter that are put in
    """

    submitted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    nonfinite: int = 0
    rows: int = 0
    seat_rows: int = 0
    called: int = 0
    padded: int = 0
    captures: int = 0
    queued_s: Histogram = field(default_factory=Histogram)
    row_s: Histogram = field(default_factory=Histogram)
    total_s: Histogram = field(default_factory=Histogram)
    load_s: Histogram = field(default_factory=Histogram)
    switch_s: Histogram = field(default_factory=Histogram)

    def row(self, batch: Batch, captured: int) -> None:
        """A batch stepped.

        captured  what its stages had recorded before
        """
        called = batch.called
        due = called.count
        size = batch.stages.size(due)
        self.rows += 1
        self.seat_rows += called.seats
        self.called += size
        self.padded += size - due
        self.captures += batch.stages.captured - captured

    def ended(self, status: Status, seconds: float) -> None:
        """A request did, so long after its submission."""
        setattr(self, status, getattr(self, status) + 1)
        if status == "done":
            self.total_s.add(seconds)

    def withdrawn(self, status: Status) -> None:
        """One that was counted so had been cancelled a moment before."""
        setattr(self, status, getattr(self, status) - 1)
        self.cancelled += 1

    def snapshot(self) -> dict[str, Any]:
        made = dict(vars(self))
        return {k: v.snapshot() if isinstance(v, Histogram) else v for k, v in made.items()}
