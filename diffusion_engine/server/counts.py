"""What the server answered, counted."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from ..workers.messages import Made

EDGES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Spread:
    """Seconds, in buckets up to each of EDGES and one beyond them."""

    def __init__(self) -> None:
        self.counts, self.total = [0] * (len(EDGES) + 1), 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(EDGES, seconds)] += 1
        self.total += seconds


class Counts:
    """answers by (route, method, status); open: requests that are answered now; bodies: bytes that they sent,
    and of what nobody waits for its tensors.

    samples  that were made
    queued   seconds from submission to the first seat, of requests that are done; seconds: to the end
    """

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, str, int]] = Counter()
        self.open = self.bodies = self.samples = 0
        self.queued, self.seconds = Spread(), Spread()

    def took(self, made: Made) -> None:
        """A request is done."""
        self.samples += len(made.seeds)
        self.queued.add(made.queued)
        self.seconds.add(made.seconds)
