"""Times a row of 64 seats in step, and one before which a sample leaves and another joins.

The network returns ready tensors. The difference of the two is the host's price of a sample that comes and of
one that goes: read, release, a job, its seat, a packing and what is copied to the device.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from itertools import cycle

import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Batch, Capacity, Eager, Job
from diffusion_engine.processes import VP

from .. import results, shapes, timing
from ..timing import Task

SEATS, STEPS = 64, 100
SHAPES = ((SEATS, 1, 4, 4), (SEATS, 3, 32, 32))
# Guided in an interval of levels, so that who is within it differs from row to row.
CASES = {"plain": {}, "guided": {"guidance": 2.0, "interval": (0.05, 5.0)}}


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for shape in SHAPES:
        for case in CASES:
            if shapes.wanted(only, f"joining {case}", shape):
                yield partial(compare, device, 20 * repeats, case, shape)


def compare(
    device: torch.device, repeats: int, case: str, shape: tuple[int, ...]
) -> list[results.Row]:
    """The rows of a batch in lockstep and of one that a sample leaves and joins at every row: whole, and what
    the host does of them, without the network and the step."""
    tasks = []
    for who in ("auto", "host"):
        for kind in (Lockstep, Joining):
            turn = kind(device, case, shape)
            if who == "host":
                turn.batch.stages = lambda count, most: None  # type: ignore[assignment]
            tasks.append(Task(f"{kind.__name__.lower()} ours:{who}", [turn.row]))
    others = timing.Others()
    times = timing.interleave(tasks, repeats, timing.wall_clock(device))
    shared = {
        "op": "joining", "dtype": "float32", "shape": results.dims(shape), "layout": "contiguous",
        "repeats": repeats, "others": others.share(),
    }  # fmt: skip
    rows = []
    for task, time in times.items():
        name, _, provider = task.partition(" ")
        more = {"case": f"{case}, {name}", "provider": provider}
        rows.append(results.row(device, **shared, **more, **time.columns()))
    return rows


class Lockstep:
    """Seats that began together; they begin again where they end."""

    def __init__(self, device: torch.device, case: str, shape: tuple[int, ...]) -> None:
        numbers = random.Random(1)
        self.seeds = cycle([numbers.getrandbits(64) for _ in range(997)])
        self.any = cycle([numbers.randrange(SEATS) for _ in range(991)])
        ready = torch.zeros(2 * SEATS, *shape[1:], device=device)
        network = ScoreNetwork(
            lambda x, label, y: ready[: len(x)], VP(), shape[1:], classes=10, null=10
        )
        sampler = Sampler(network, "dpmpp_2m", STEPS, device=device, **CASES[case])
        self.plan = sampler.plan()
        self.given = [(torch.tensor(y), torch.tensor(10)) for y in range(10)]
        room = Capacity.of(
            network, [self.plan], SEATS, device=sampler.device, conditions=self.given[0]
        )
        self.batch: Batch = Eager().open(network, room)
        self.fill()

    def fill(self) -> None:
        self.batch.clear()
        for _ in range(SEATS):
            self.join()

    def join(self) -> None:
        seed = next(self.seeds)
        self.batch.admit(Job(self.plan, seed, self.given[seed % 10]))

    def row(self) -> None:
        self.batch.step()
        if not self.batch.live:
            self.fill()


class Joining(Lockstep):
    """Seats at rows of their own; before every row one leaves for another: one that is at its end, or any."""

    def fill(self) -> None:
        super().fill()
        self.ended: list[int] = []

    def row(self) -> None:
        seat = self.ended.pop() if self.ended else next(self.any)
        self.batch.read([seat])
        self.batch.release(seat)
        self.join()
        self.ended += self.batch.step()
