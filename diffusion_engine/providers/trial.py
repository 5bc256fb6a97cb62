"""Rows of a batch that are made to be timed: seats full, normals and zeros for what a run would be given."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

import torch
from torch import Tensor

from ..executors.batch import Batch
from ..executors.buffers import Inputs
from ..executors.capacity import Capacity, kind_of
from ..executors.job import Given, Job
from ..networks.network import ScoreNetwork
from ..plan import Plan, Row
from ..plan.linear import raw, slot, x
from ..solvers.update import call_of

ROWS = 65  # of the plan, where there is room
TURN, ENOUGH = 9, 5e-3  # rows of a turn at most, and the seconds after which it has no more
AHEAD = 8  # rows of a GPU before the host waits for it: in a run it does not wait at all
LONG = 0.1  # seconds of a row that hardly notices what ran before it

clock = time.perf_counter


class Trial:
    """A batch whose seats are taken by jobs that are like a run's, stepped row by row.

    batch     an empty one, which is empty again once another takes it
    network   what its calls are of
    capacity  of the runs that are meant
    """

    def __init__(self, batch: Batch, network: ScoreNetwork, capacity: Capacity) -> None:
        self.batch, self._gpu = batch, capacity.device.type != "cpu"
        self._jobs = jobs(network, capacity)
        self._whole = len(self._jobs[0].plan.rows) - 1
        self._left = 0  # rows before the jobs come to their end
        self._seat()

    def inputs(self) -> Inputs:
        """Of the coming call."""
        given = self.batch.inputs()
        assert given is not None
        return given

    def outputs(self) -> list[Tensor]:
        """What the coming call comes to."""
        self.batch.inputs()
        return [out.clone() for out in self.batch.stages.call(self.batch.calls)]

    def row(self) -> None:
        """One row, for which all that its calls need is made."""
        self._timed(1)

    def first(self) -> float:
        """Seconds of a row, once all that its calls need has been made: the least of three, or of one that
        is long."""
        self.row()
        spent = [self._timed(1)]
        while len(spent) < 3 and spent[-1] <= LONG:
            spent.append(self._timed(1))
        return min(spent)

    def turn(self) -> float:
        """Seconds of a row, the median of some that follow one another."""
        rows = AHEAD if self._gpu else 1
        first = self._timed(rows)
        if first > LONG:
            return first
        spent: list[float] = []
        while len(spent) < TURN and sum(spent) < ENOUGH:
            spent.append(self._timed(rows))
        return median(spent)

    def _timed(self, rows: int) -> float:
        rows = min(rows, self._whole)
        if self._left < rows:
            self._seat()
        began = clock()
        for _ in range(rows):
            self.batch.step()
        self._wait()
        self._left -= rows
        return (clock() - began) / rows

    def _seat(self) -> None:
        """All jobs behind their row 0, which calls nothing."""
        self.batch.clear()
        for job in self._jobs:
            self.batch.admit(job)
        self.batch.step()
        self._wait()
        self._left = self._whole

    def _wait(self) -> None:
        if self._gpu:
            torch.accelerator.synchronize(self.batch.capacity.device)


def jobs(network: ScoreNetwork, capacity: Capacity) -> list[Job]:
    """As many as a capacity has room for, each of as many entries as its widest plan's."""
    plan, numbers = _plan(network, capacity), torch.Generator().manual_seed(0)
    shape = (capacity.inputs * capacity.shape[0], *capacity.shape[1:])

    def job(seed: int) -> Job:
        state = torch.randn(shape, generator=numbers).to(capacity.device)
        given = _condition(capacity, numbers)
        return Job(plan, seed, () if given is None else (given,) * capacity.entries, x=state)

    count = min(capacity.seats, capacity.room // capacity.entries)
    return [job(seed) for seed in range(count)]


def _plan(network: ScoreNetwork, capacity: Capacity) -> Plan:
    """Calls at the middle of the process, each of which moves the state a little."""
    process, rule = network.process, network.parameterisation
    at, read = process.at(0.5 * (process.t_min + process.t_max)), tuple(range(capacity.inputs))
    count = capacity.entries
    row = Row(
        call=call_of(rule, at, read, at),
        new={0: x + 1e-3 * raw},
        q=(0.0,) * count,
        e=(1.0 / count,) * count,
        channel_blocks=(0,) * count,
        branches=tuple(range(count)),
    )
    first = Row(call=None, new={k: slot(k) for k in read})
    return Plan((first, *[row] * (min(ROWS, capacity.rows) - 1)), "trial", exact=False)


def _condition(capacity: Capacity, numbers: torch.Generator) -> Given:
    """One of the kind that a capacity has: normals, the first class, a mask that hides nothing."""

    def of(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if dtype.is_floating_point:
            return torch.randn(shape, generator=numbers).to(capacity.device, dtype)
        return torch.full(shape, dtype == torch.bool, dtype=dtype, device=capacity.device)

    made = {name: of(shape, dtype) for name, shape, dtype in capacity.condition}
    if not made:
        return None
    return made[""] if list(made) == [""] else made


def capacity_of(network: ScoreNetwork, given: Inputs) -> Capacity:
    """Room for calls like a given one."""
    state, label, condition, latent, end = given
    one: Given = None
    if isinstance(condition, Mapping):
        one = {name: tensor[0] for name, tensor in condition.items()}
    elif condition is not None:
        one = condition[0]
    inputs = state.shape[1] // network.shape[0]
    return Capacity(
        seats=len(state), rows=ROWS, room=len(state), slots=inputs, outputs=1, entries=1, inputs=inputs,
        normals=0, learned=False, branches=1, draws=0, brownian=False, masked=False, denoised=False,
        shape=network.shape, memory_format=network.memory_format, dtype=state.dtype,
        state_dtype=torch.float64 if state.dtype == torch.float64 else torch.float32,
        label_dtype=label.dtype, device=state.device, condition=kind_of(one),
        latent=0 if latent is None else latent.shape[1], ends=end is not None,
    )  # fmt: skip
