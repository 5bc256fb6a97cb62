"""`Batch`: seats that step together, each at its own row of its own plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import checks, trace
from .buffers import Buffers, Inputs, put
from .capacity import Capacity
from .course import Course, Seen
from .mirror import Mirror
from .packing import CALLLESS
from .placed import Placed
from .seats import Led, Seats
from .stages import Stages

Outs = Sequence[Tensor]


Mark = tuple[np.ndarray, Placed, int]


class Batch(Seats):
    """Seats that step together: `admit` takes a job, `step` moves all by one row, `release` frees one.

    capacity  what there is room for
    bind      makes the stages of a step over the buffers: executors do, see Executor.open

    A seat's sample depends on its job and the network's outputs alone, whoever sits beside it. A job that
    joins runs its row 0, which calls nothing, in the step of the others: one that joins while another makes
    its last row takes its place in the next call. Not for several threads at a time.
    """

    def __init__(self, capacity: Capacity, bind: Callable[[Buffers], Stages]) -> None:
        self.buffers = Buffers(capacity)
        self.stages = bind(self.buffers)
        here = capacity.device.type == "cpu" and not self.stages.recorded
        super().__init__(capacity, self.buffers.rows, None if here else capacity.device)
        step = self.buffers.step
        assert step.status is not None and step.src is not None and step.dst is not None
        self._rows, self._seeds, self._status = map(Mirror, (step.row, step.seed, step.status))
        self._src, self._dst = Mirror(step.src), Mirror(step.dst)
        self._flags = None if step.given is None else Mirror(step.given)
        self._read: Placed | None = None  # whose src, conditions and seats are in place
        self._write: Placed | None = None  # whose dst is
        self._called = self._due
        self.bind()

    def bind(self) -> None:
        """Binds the stages inside their ranges, for whoever listens now (trace.py)."""
        self.bound_to = trace.active()
        self.stages.bind()
        self._advance = trace.traced("row", self._one_row, indexed=True)

    @property
    def bytes(self) -> int:
        """Of its tensors, and of what its stages recorded."""
        return self.buffers.bytes + self.stages.bytes + self._packings.bytes

    def lead(self, course: Course) -> list[int]:
        if self.stages.recorded:
            raise ValueError(
                "what leads a sample decides between the network's call and the step, and a captured step "
                "has no such moment: use executor='eager' or 'native'"
            )
        return super().lead(course)

    def read(self, seats: Sequence[int], parts: int = 1) -> Tensor:
        """The samples of some seats as they are, [n, parts x C, *pixel], in memory of their own.

        parts  how many slots a sample is, on the channel axis: 2 for CLD's [x, v]
        """
        return self.buffers.read(seats, parts)

    def finite(self, seats: Sequence[int]) -> list[bool]:
        """Whether all values of some seats were finite so far. Waits for the device."""
        found = self._status.values()  # of those who just joined, what was before them
        return [seat in self._joined or not found[seat] for seat in seats]

    def inputs(self) -> Inputs | None:
        """What the network is called with for the next step; None where no seat makes a call.

        For callers that make the outputs: `batch.step(outs=network(*batch.inputs()))`.
        """
        with plain():
            self._prepare()
            if not self._due.count:
                return None
            self.stages.fill(self._due.count)
            return self.buffers.inputs(self._due.count)

    def step(self, outs: Outs | None = None) -> list[int]:
        """One row of every seat; the seats that came to their end.

        outs  the network's outputs for `inputs()`, where the caller makes them

        Where it raises nobody has moved, and it may be called again: without the seat, say, whose noise
        could not be had. An error of an `on_row` comes after all have moved and all were told: `row` is None
        then of who came to the end. A seat that an `on_row` released did not come to its end.
        """
        if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            with plain():
                return self._advance(self._steps, outs)
        return self._advance(self._steps, outs)

    @property
    def calls(self) -> int:
        """Entries of the coming call, as `inputs` prepared it."""
        return self._due.count

    def reads(self) -> dict[int, tuple[int, ...]]:
        """Of each seat the entries of the coming call that are its own, as `inputs` prepared it."""
        calls = self.rows.kind[self._row] > CALLLESS  # in a seat that was left may sit a newcomer
        return {seat: self._due.of(seat) for seat in self._jobs if calls[seat]}

    @property
    def called(self) -> Placed:
        """The packing of the call that the last step made."""
        return self._called

    def denoised(self, seat: int) -> Tensor | None:
        """A copy of a seat's estimate of x0, where the capacity has it written."""
        self._held(seat)
        kept = self.buffers.step.denoised
        return None if kept is None else kept[seat].clone()

    def mark(self) -> Mark:
        """Where the seats are, to come back to; what has joined is in its place then."""
        self._prepare()
        return self._row.copy(), self._due, self.live

    def rewind(self, mark: Mark) -> None:
        """Back where the seats were, as far as the host knows; what the device holds is the caller's."""
        self._row, self._due, self.live = mark[0].copy(), *mark[1:]
        self._read = self._write = None

    def end(self, packing: Placed) -> None:
        """All seats are at their ends: a graph took them there, whose last step filled this packing."""
        self._row = np.full_like(self._row, -1)
        self._due, self.live = packing, 0
        self._read = self._write = None

    def _one_row(self, _index: int, outs: Outs | None) -> list[int]:
        if self._changed or self._due is not self._read:
            self._prepare()
        if self._sources:
            self._fill_noise()
        if self._courses:
            outs = self._lead(outs)
        row = self.rows.next[self._row]
        following = self._packing(row)
        if following is not self._write:
            self._dst.put(following.dst)
            self._write = following
        if outs is None:
            self.stages(self._due.count, self._entries)
        else:
            if not self._courses:
                self._check_outs(outs)
            self.stages.step(outs)
        before, self._called = self._row, self._due
        ended = self._move(row, following)
        if self._courses:
            self._courses = [led for led in self._courses if not led.course.ended]
            for led in self._courses:
                led.ready = False
        if self._watchers:
            self._tell(before)
            ended = [seat for seat in ended if seat in self._jobs and self._row[seat] < 0]
        return ended

    def _lead(self, outs: Outs | None) -> Outs:
        """Asks who leads seats what their calls become; the outputs of the calls."""
        if outs is None:
            outs = self.stages.call(self._due.count)
        else:
            self._check_outs(outs)
        for led in self._courses:
            if not led.ready:
                self._follow(
                    led, led.course.move([self._seen(seat, led, outs) for seat in led.seats])
                )
                led.ready = True
        return outs

    def _seen(self, seat: int, led: Led, outs: Outs) -> Seen:
        """What a seat that is led holds."""
        slots, seed = self.buffers.step.slots[:, seat], self._jobs[seat][0].seed
        return Seen.of(led.thens[seat], slots, outs, self._due.of(seat), seed)

    def _prepare(self) -> None:
        """Puts in place what the next call and its step read."""
        joined = bool(self._joined)
        if self._due.count and not self._calling():  # what was prepared is for those who left
            self._due = self._packing(np.full_like(self._row, -1))
        if joined:
            self._seat_them()
        if self._changed:
            self._rows.put(self._row)
            self._seeds.put(self._seed)
            if self._flags is not None:
                self._flags.put(self._given)
            self._changed = False
        due = self._due
        if joined or due is not self._read:
            self._src.put(due.src)
            if due.count:
                self.buffers.gather(due.places)
            self._read = due

    def _calling(self) -> bool:
        """Whether a row ahead makes a call."""
        calls = self.rows.kind[self._row] > CALLLESS
        return bool(np.count_nonzero(calls))  # any() takes five times as long

    def _seat_them(self) -> None:
        """Puts what the new jobs were given into their seats."""
        seats, step = self._joined, self.buffers.step
        assert step.status is not None and step.net_in is not None
        if self.live == len(seats):
            # Padded entries are computed too: not with what others left there, which may be NaN.
            step.net_in.zero_()
        if len(self._jobs) == len(seats):
            step.status.zero_()
        else:
            for seat in seats:
                self._status.clear(seat)
        self.buffers.seat(seats, [self._jobs[seat][0] for seat in seats])
        self._joined = []

    def _fill_noise(self) -> None:
        """Puts the normals that seats were given for their rows into the noise buffer."""
        noise = self.buffers.step.noise
        assert noise is not None
        sources = list(self._sources.items())
        drawn = self.rows.draws[self._row]
        for m in range(len(noise)):
            seats, given = [], []
            for seat, (source, first) in sources:
                if drawn[seat] >> m & 1:
                    row = int(self._row[seat]) - first
                    seats.append(seat)
                    given.append(_normals(source(row, m), row, m, self.capacity.shape))
            if seats:
                put(noise[m], seats, given)

    def _check_outs(self, outs: Outs) -> None:
        count = self._due.count
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
            for seat, (job, first) in self._watchers.items():
                if before[seat] < 0:
                    continue
                row = int(before[seat]) - first
                if job.on_row is not None:
                    seen = None if step.denoised is None else step.denoised[seat]
                    calls.callback(job.on_row, row, step.slots[0][seat], seen)
                if job.on_slots is not None:
                    calls.callback(job.on_slots, row, step.slots[:, seat])


@contextmanager
def plain() -> Iterator[None]:
    """Tensors made here are ordinary ones, and nothing is recorded for a derivative."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _normals(given: Any, row: int, m: int, shape: tuple[int, ...]) -> Tensor:
    """What a seat's source gave for a row, if it is what a row reads."""
    if isinstance(given, Tensor) and given.shape == shape:  # one for all would be no noise
        return given
    got = list(given.shape) if isinstance(given, Tensor) else checks.said(given)
    raise ValueError(f"noise of row {row}, draw {m} is {got}; give a tensor {list(shape)}")
