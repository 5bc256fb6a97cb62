"""`Batch`: seats that step together, each at its own row of its own plan."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .. import checks, trace
from ..plan import Row
from .buffers import Buffers, Inputs
from .capacity import Capacity
from .job import Job, NoiseSource, OnRow
from .packing import Packing
from .rows import BatchFull, Rows
from .stages import Stages

PACKINGS = 256  # kept on the device for seats that come to the same again

Outs = Sequence[Tensor]


@dataclass(frozen=True, eq=False, slots=True)
class Placed:
    """A packing on the device; `samples` is the seat of each entry, for latents."""

    count: int
    dst: Tensor
    src: Tensor
    places: Tensor
    samples: Tensor


Mark = tuple[np.ndarray, Placed, int]


class Batch:
    """Seats of a fixed capacity: `admit` takes a job, `step` moves all by one row, `release` frees one.

    capacity  what there is room for
    bind      makes the stages of a step over the buffers: executors do, see Executor.open

    A seat's sample depends on its job and the network's outputs alone, whoever sits beside it. A job that
    joins runs its row 0, which calls nothing, in the step of the others. Not for several threads at a time.
    """

    def __init__(self, capacity: Capacity, bind: Callable[[Buffers], Stages]) -> None:
        self.capacity = c = capacity
        self.buffers = Buffers(capacity)
        self.stages = bind(self.buffers)
        self.rows = self.buffers.rows
        self.live = 0  # seats that have rows before them
        self._free = list(range(c.seats))
        self._jobs: dict[int, tuple[Job, Rows]] = {}
        self._joined: list[int] = []  # since the last step
        self._sources: dict[
            int, tuple[NoiseSource, int]
        ] = {}  # and first rows, of seats with given noise
        self._watchers: dict[int, tuple[OnRow, int]] = {}
        self._entries = 0  # that the jobs may take together
        self._row = np.full(c.seats, -1, np.intp)
        self._seed = np.zeros(c.seats, np.int64)
        self._given = np.zeros(c.seats, np.int32)
        self._changed = True  # the three since the device has them
        self._packings: dict[bytes, Placed] = {}
        self._call = self._packing(self._row)  # whose inputs the steps so far filled
        self._read: Placed | None = None  # whose src, conditions and seats are in place
        self._write: Placed | None = None  # whose dst is
        self._steps = 0
        self.bind()

    def bind(self) -> None:
        """Binds the stages inside their ranges, for whoever listens now (trace.py)."""
        self.bound_to = trace.active()
        self.stages.bind()
        self._advance = trace.traced("row", self._one_row, indexed=True)

    @property
    def attended(self) -> bool:
        """Whether something is done for a seat between rows."""
        return bool(self._sources or self._watchers)

    @property
    def bytes(self) -> int:
        """Of its tensors, and of what its stages recorded."""
        each = sum(t.nbytes for t in (self._call.dst, self._call.src))
        return self.buffers.bytes + self.stages.bytes + each * len(self._packings)

    def admit(self, job: Job, private: bool = False) -> int:
        """A seat for a job; it starts with the next step.

        private  the seat has rows of its own, which `write` changes while it runs

        Raises BatchFull where all seats, rows or entries are taken, ValueError where the job is wider than
        the capacity.
        """
        objection = None if self.rows.has(job.plan) else self.capacity.plan_objection(job.plan)
        if objection := objection or self.capacity.given_objection(job):
            raise ValueError(f"the job does not fit: {objection}")
        if private and job.brownian:
            raise ValueError("private rows follow no Brownian path; give one or the other")
        if not self._free:
            raise BatchFull(f"all {self.capacity.seats} seats are taken; release one first")
        if self._entries + job.plan.entries > self.capacity.room:
            raise BatchFull(
                f"the samples here take {self._entries} entries of the network's batch and this one "
                f"{job.plan.entries}, of {self.capacity.room}; release one first"
            )
        rows = self.rows.hold(job.plan, job.brownian and self.capacity.brownian, private)
        if not self._jobs:
            self._steps = 0
        seat = heapq.heappop(self._free)
        self._jobs[seat] = job, rows
        self._joined.append(seat)
        self._entries += job.plan.entries
        self._row[seat] = rows.first
        self._seed[seat] = job.seed - (job.seed >> 63 << 64)  # the same bits as a signed number
        self._given[seat] = job.brownian or job.noise is not None
        if job.noise is not None and self.capacity.draws:
            self._sources[seat] = job.noise, rows.first
        if job.on_row is not None:
            self._watchers[seat] = job.on_row, rows.first
        self._changed = True
        self.live += 1
        return seat

    def release(self, seat: int) -> None:
        """Frees a seat, whether its sample is at its end or not; `read` it before.

        Raises ValueError where nobody sits there.
        """
        job, rows = self._held(seat)
        del self._jobs[seat]
        self._sources.pop(seat, None)
        self._watchers.pop(seat, None)
        self.rows.free(rows)
        self._entries -= job.plan.entries
        if self._row[seat] >= 0:
            self._row[seat] = -1
            self._changed = True
            self.live -= 1
        if seat in self._joined:
            self._joined.remove(seat)
        heapq.heappush(self._free, seat)

    def clear(self) -> None:
        """Frees all seats."""
        for _, rows in self._jobs.values():
            self.rows.free(rows)
        for kept in (self._jobs, self._sources, self._watchers, self._joined):
            kept.clear()
        self._free = list(range(self.capacity.seats))
        self._row.fill(-1)
        self._changed = self._changed or self.live > 0
        self.live = self._entries = 0

    def write(self, seat: int, i: int, row: Row) -> None:
        """Puts a row in place of row i of a seat that was admitted with private rows.

        The call that a seat is about to make is prepared: of that row everything but the call may change.
        Raises ValueError where the row does not fit, or is none of the seat's.
        """
        job, rows = self._held(seat)
        if not rows.private:
            raise ValueError(
                f"seat {seat} runs a plan that others may share; admit its job with private=True"
            )
        if not 0 <= checks.whole("i", i, 0, "the index of a row") < len(rows.plan.rows):
            raise ValueError(f"row {i} of seat {seat}: it has rows 0 to {len(rows.plan.rows) - 1}")
        before = rows.plan.rows[i]
        same = (row.call, row.branches) == (before.call, before.branches)
        if i == self._row[seat] - rows.first and i and not same:
            raise ValueError(
                f"row {i} of seat {seat}: its call is prepared and keeps its branches; write it before the "
                "row ahead of it runs"
            )
        plan = rows.plan.replace_rows([*rows.plan.rows[:i], row, *rows.plan.rows[i + 1 :]])
        if objection := self.capacity.objection(replace(job, plan=plan)):
            raise ValueError(f"row {i} of seat {seat} does not fit: {objection}")
        if plan.entries > job.plan.entries:
            raise ValueError(
                f"row {i} of seat {seat} takes {plan.entries} entries a call; its job came with "
                f"{job.plan.entries}"
            )
        self.rows.write(rows, i, plan)

    def row(self, seat: int) -> int | None:
        """The row of its plan that a seat runs next; None behind its last."""
        _, rows = self._held(seat)
        at = int(self._row[seat])
        return None if at < 0 else at - rows.first

    def read(self, seats: Sequence[int], parts: int = 1) -> Tensor:
        """The samples of some seats as they are, [n, parts x C, *pixel], in memory of their own.

        parts  how many slots a sample is, on the channel axis: 2 for CLD's [x, v]
        """
        return self.buffers.read(seats, parts)

    def finite(self, seats: Sequence[int]) -> list[bool]:
        """Whether all values of some seats were finite so far. Waits for the device."""
        status = self.buffers.step.status
        assert status is not None
        found = status.tolist()
        return [not found[seat] for seat in seats]

    def inputs(self) -> Inputs | None:
        """What the network is called with for the next step; None where no seat makes a call.

        For callers that make the outputs: `batch.step(outs=network(*batch.inputs()))`.
        """
        with plain():
            self._prepare()
            if not self._call.count:
                return None
            self.stages.fill(self._call.count)
            return self.buffers.inputs(self._call.count)

    def step(self, outs: Outs | None = None) -> list[int]:
        """One row of every seat; the seats that came to their end.

        outs  the network's outputs for `inputs()`, where the caller makes them

        Where it raises nobody has moved, and it may be called again: without the seat, say, whose noise
        could not be had.
        """
        if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            with plain():
                return self._advance(self._steps, outs)
        return self._advance(self._steps, outs)

    def coming(self) -> tuple[Placed, ...]:
        """The packings of the calls that the seats make until all are at their ends."""
        row, calls = self._row, [self._call]
        while (row >= 0).any():
            row = self.rows.next[row]
            calls.append(self._packing(row))
        return tuple(calls)

    def mark(self) -> Mark:
        """Where the seats are, to come back to; what has joined is in its place then."""
        self._prepare()
        return self._row.copy(), self._call, self.live

    def rewind(self, mark: Mark) -> None:
        """Back where the seats were, as far as the host knows; what the device holds is the caller's."""
        self._row, self._call, self.live = mark[0].copy(), *mark[1:]
        self._read = self._write = None

    def end(self, call: Placed) -> None:
        """All seats are at their ends: a graph took them there, whose last step prepared this call."""
        self._row = np.full_like(self._row, -1)
        self._call, self.live = call, 0
        self._read = self._write = None

    def _one_row(self, _index: int, outs: Outs | None) -> list[int]:
        if self._changed or self._call is not self._read:
            self._prepare()
        row = self.rows.next[self._row]
        following = self._packing(row)
        if following is not self._write:
            self.buffers.step.dst.copy_(following.dst)  # type: ignore[union-attr]
            self._write = following
        if self._sources:
            self._fill_noise()
        if outs is None:
            self.stages(self._call.count, self._entries)
        else:
            self._check_outs(outs)
            self.stages.step(outs)
        before, self._row = self._row, row
        ended: list[int] = []
        if following is not self._call:
            ended = np.flatnonzero((row < 0) & (before >= 0)).tolist()
            self.live -= len(ended)
            self._call = following
        self._steps += 1
        if self._watchers:
            self._tell(before)
        return ended

    def _held(self, seat: int) -> tuple[Job, Rows]:
        if seat not in self._jobs:
            raise ValueError(
                f"nobody has seat {seat!r}: it was released already, or is none of "
                f"0 to {self.capacity.seats - 1}"
            )
        return self._jobs[seat]

    def _packing(self, row: np.ndarray) -> Placed:
        """The packing of the calls that seats at these rows make."""
        kinds = self.rows.kind[row]
        key = kinds.tobytes()
        found = self._packings.get(key)
        if found is None:
            if len(self._packings) >= PACKINGS:
                del self._packings[next(iter(self._packings))]
            found = self._packings[key] = self._placed(self.rows.kinds.packing(kinds))
        return found

    def _placed(self, packing: Packing) -> Placed:
        def on_device(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(self.capacity.device, non_blocking=True)

        places, samples = packing.places, packing.places % self.capacity.seats
        arrays = (packing.dst, packing.src, places, samples)
        return Placed(packing.count, *map(on_device, arrays))

    def _prepare(self) -> None:
        """Puts in place what the next call and its step read."""
        step, call = self.buffers.step, self._call
        joined = bool(self._joined)
        if joined:
            self._seat_them()
        if self._changed:
            for kept, values in (
                (step.row, self._row), (step.seed, self._seed), (step.given, self._given)
            ):  # fmt: skip
                if kept is not None:
                    kept.copy_(torch.from_numpy(values), non_blocking=True)
            self._changed = False
        if joined or call is not self._read:
            step.src.copy_(call.src)  # type: ignore[union-attr]
            if call.count:
                self.buffers.gather(call.places)
                if self.buffers.latents is not None:
                    self.buffers.latents.of[: call.count].copy_(call.samples)
            self._read = call

    def _seat_them(self) -> None:
        """Puts what the new jobs were given into their seats."""
        seats, step = self._joined, self.buffers.step
        assert step.status is not None and step.net_in is not None
        if self.live == len(seats):
            # Padded entries are computed too: not with what others left there, which may be NaN.
            step.net_in.zero_()
            self._call = self._packing(np.full_like(self._row, -1))
        if len(self._jobs) == len(seats):
            step.status.zero_()
        else:
            for seat in seats:
                step.status[seat].zero_()
        self.buffers.seat(seats, [self._jobs[seat][0] for seat in seats])
        self._joined = []

    def _fill_noise(self) -> None:
        """Puts the normals that seats were given for their rows into the noise buffer."""
        noise = self.buffers.step.noise
        assert noise is not None
        for seat, (source, first) in self._sources.items():
            row = int(self._row[seat])
            drawn = int(self.rows.draws[row]) if row >= 0 else 0
            for m in range(len(noise)):
                if drawn >> m & 1:
                    kept, normals = noise[m, seat], source(row - first, m)
                    tensor = isinstance(normals, Tensor)
                    if not tensor or normals.shape != kept.shape:  # one for all would be no noise
                        got = list(normals.shape) if tensor else checks.said(normals)
                        raise ValueError(
                            f"noise of row {row - first}, draw {m} is {got}; give a tensor {list(kept.shape)}"
                        )
                    kept.copy_(normals)

    def _check_outs(self, outs: Outs) -> None:
        count = self._call.count
        if bool(outs) != bool(count):
            raise ValueError(
                f"{len(outs)} outputs were given and {count} entries are called; give those of inputs()"
            )
        for out in outs:
            if len(out) < count:
                raise ValueError(
                    f"an output has {len(out)} entries and the call {count}; give one for each"
                )

    def _tell(self, before: np.ndarray) -> None:
        """Calls who wants to see the rows that seats have done; one that fails keeps no other from it."""
        step = self.buffers.step
        with ExitStack() as calls:
            for seat, (on_row, first) in self._watchers.items():
                if before[seat] >= 0:
                    seen = None if step.denoised is None else step.denoised[seat]
                    calls.callback(on_row, int(before[seat]) - first, step.slots[0][seat], seen)


@contextmanager
def plain() -> Iterator[None]:
    """Tensors made here are ordinary ones, and nothing is recorded for a derivative."""
    with torch.inference_mode(False), torch.no_grad():
        yield
