"""The engine's own time a row: all that its thread does between two steps of a batch, outside the network and
the step, when a request leaves and another joins in every row.

The network returns a ready tensor, all requests are there before the first row, and nobody else runs.
"""

from __future__ import annotations

import threading
from functools import partial
from itertools import pairwise
from time import perf_counter

import torch
from torch import Tensor

from diffusion_engine import ScoreNetwork
from diffusion_engine.engine import Engine
from diffusion_engine.executors import Batch, Capacity, Eager
from diffusion_engine.executors.stages import Stages
from diffusion_engine.processes import VP

from ..timing import Spread

SEATS, SHAPE = 16, (3, 32, 32)


class Clocked(Stages):
    """Stages that note when they begin and end, and wait before the first until all requests are there."""

    def __call__(self, count: int, most: int) -> None:
        GO.wait()
        began = perf_counter()
        super().__call__(count, most)
        TIMES.append((began, perf_counter()))


class Executor(Eager):
    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        return Batch(capacity, partial(Clocked, network, backend=self.backend))


TIMES: list[tuple[float, float]] = []
GO = threading.Event()


def own(rows: int) -> Spread:
    """Of the rows in which one request left and one joined."""
    TIMES.clear()
    GO.clear()
    ready = torch.zeros(SEATS, *SHAPE)

    def network(x: Tensor, label: Tensor) -> Tensor:
        return ready[: len(x)]

    with Engine(
        ScoreNetwork(network, VP(), SHAPE), SEATS, executor=Executor(), max_queue=2 * rows
    ) as engine:
        # Requests that end one row apart from each other, and then those of as many calls as there are seats.
        steps = [*range(1, SEATS + 1), *[SEATS] * rows]
        last = [engine.submit({"solver": "ddim", "steps": s}, seeds=[s]) for s in steps][-1]
        GO.set()
        last.result()
    kept = TIMES[2 * SEATS : rows - SEATS]
    between = [after[0] - before[1] for before, after in pairwise(kept)]
    return Spread.of(between)
