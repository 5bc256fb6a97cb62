"""`Seats`: who sits where and at which row, as far as the host knows."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from numbers import Integral

import numpy as np
import torch

from ..plan import Row
from .capacity import Capacity
from .course import Course, Move
from .job import Job, NoiseSource
from .placed import Packings, Placed
from .rows import BatchFull, Rows, RowTable


@dataclass(eq=False)
class Led:
    """A course in its seats.

    thens  of each seat the row whose call it makes
    ready  whether its rows of the coming step are written: a step that failed is done again, and asks no more
    """

    course: Course
    seats: list[int]
    thens: dict[int, Row] = field(default_factory=dict)
    ready: bool = True  # the first rows, which call nothing


class Seats:
    """Seats of a capacity over the rows of a table. Nothing here waits for the device.

    capacity  what there is room for
    rows      the plans of those who sit here
    device    where packings are copied to; None where the step reads the host's memory
    live      seats that have rows before them
    """

    def __init__(self, capacity: Capacity, rows: RowTable, device: torch.device | None) -> None:
        self.capacity, self.rows, self.live = capacity, rows, 0
        self._free = list(range(capacity.seats))
        self._jobs: dict[int, tuple[Job, Rows]] = {}
        self._joined: list[int] = []  # since the last step
        # Of seats with given noise, and of seats that are watched: by whom, and the first row.
        self._sources: dict[int, tuple[NoiseSource, int]] = {}
        self._watchers: dict[int, tuple[Job, int]] = {}
        self._courses: list[Led] = []  # that have not ended
        self._led: dict[int, Led] = {}  # of seats that are led
        self._entries = 0  # that the jobs may take together
        self._row = np.full(capacity.seats, -1, np.intp)
        self._seed = np.zeros(capacity.seats, np.int64)
        self._given = np.zeros(capacity.seats, np.int32)
        self._changed = True  # the three since the device has them
        self._packings = Packings(rows.kinds, device)
        self._due = self._packing(self._row)  # of the call that the steps so far filled
        self._steps = 0
        self._ending: list[int] | None = None  # where they were looked for since the last step

    @property
    def attended(self) -> bool:
        """Whether something is done for a seat between rows."""
        return bool(self._sources or self._watchers)

    @property
    def entries(self) -> int:
        """Entries that the samples here may take together, of the capacity's room."""
        return self._entries

    @property
    def ending(self) -> list[int]:
        """The seats that come to their end with the next step; what they take of the network's batch is free
        for who joins, whose row 0 calls nothing."""
        if self._ending is None:
            self._ending = self.rows.last[self._row].nonzero()[0].tolist()
        return self._ending

    def admit(self, job: Job) -> int:
        """A seat for a job; it starts with the next step.

        Raises BatchFull where all seats, rows or entries are taken, ValueError where the job is wider than
        the capacity.
        """
        objection = None if self.rows.has(job.plan) else self.capacity.plan_objection(job.plan)
        if objection := objection or self.capacity.given_objection(job):
            raise ValueError(f"the job does not fit: {objection}")
        if not self._free:
            raise BatchFull(f"all {self.capacity.seats} seats are taken; release one first")
        if self._entries + job.plan.entries > self.capacity.room:
            self._check_room(job.plan.entries)
        rows = self.rows.hold(job.plan, job.brownian and self.capacity.brownian)
        seat = heapq.heappop(self._free)
        self._sit(seat, job, rows)
        return seat

    def lead(self, course: Course) -> list[int]:
        """Seats for all jobs of a course; they start with the next step.

        Raises BatchFull where they are not free together, ValueError where they never fit.
        """
        for job in course.jobs:
            if objection := self.capacity.led_objection(job):
                raise ValueError(f"the course does not fit: {objection}")
        count, entries = len(course.jobs), sum(job.plan.entries for job in course.jobs)
        if count > self.capacity.seats or entries > self.capacity.room:
            raise ValueError(
                f"the course takes {count} seats and {entries} entries of the network's batch, and this "
                f"batch has {self.capacity.seats} and {self.capacity.room}; make one with more"
            )
        if count > len(self._free):
            raise BatchFull(f"{len(self._free)} seats are free and the course takes {count}")
        if self._entries + entries > self.capacity.room:
            self._check_room(entries)
        moves = course.begin()
        led = Led(course, [heapq.heappop(self._free) for _ in course.jobs])
        for seat, job in zip(led.seats, course.jobs, strict=True):
            self._sit(seat, job, self.rows.own(seat, job.plan))
            self._led[seat] = led
        self._courses.append(led)
        try:
            self._follow(led, moves)
        except BaseException:  # whose rows could not be put in place has no seat
            for seat in led.seats:
                self.release(seat)
            raise
        return list(led.seats)

    def _follow(self, led: Led, moves: list[Move]) -> None:
        """Makes the rows of moves those that the seats run next."""
        for seat, move in zip(led.seats, moves, strict=True):
            self.rows.write(self._jobs[seat][1], move.row, move.then)
            if move.then is not None:
                led.thens[seat] = move.then

    def _sit(self, seat: int, job: Job, rows: Rows) -> None:
        if not self._jobs:
            self._steps = 0
        self._jobs[seat] = job, rows
        self._joined.append(seat)
        self._entries += job.plan.entries
        self._row[seat] = rows.first
        seed = int(job.seed)
        self._seed[seat] = seed - (seed >> 63 << 64)  # the same bits as a signed number
        self._given[seat] = job.brownian or job.noise is not None
        if job.noise is not None and self.capacity.draws:
            self._sources[seat] = job.noise, rows.first
        if job.on_row is not None or job.on_slots is not None:
            self._watchers[seat] = job, rows.first
        self._changed = True
        self.live += 1

    def release(self, seat: int) -> None:
        """Frees a seat, whether its sample is at its end or not; `read` it before.

        Raises ValueError where nobody sits there.
        """
        job, rows = self._held(seat)
        del self._jobs[seat]
        self._stop(seat)
        self._sources.pop(seat, None)
        self._watchers.pop(seat, None)
        self.rows.free(rows)
        self._entries -= job.plan.entries
        if self._row[seat] >= 0:
            self._row[seat], self._ending = -1, None
            self._changed = True
            self.live -= 1
        if seat in self._joined:
            self._joined.remove(seat)
        heapq.heappush(self._free, seat)

    def clear(self) -> None:
        """Frees all seats."""
        for _, rows in self._jobs.values():
            self.rows.free(rows)
        for led in self._courses:
            led.course.close()
        for kept in (
            self._jobs,
            self._sources,
            self._watchers,
            self._joined,
            self._led,
            self._courses,
        ):
            kept.clear()
        self._free = list(range(self.capacity.seats))
        self._row.fill(-1)
        self._ending = None
        self._changed = self._changed or self.live > 0
        self.live = self._entries = 0

    def _stop(self, seat: int) -> None:
        """A seat is led no more, nor are those that were led with it."""
        led = self._led.pop(seat, None)
        if led is not None and led in self._courses:
            self._courses.remove(led)
            led.course.close()
            for other in led.seats:
                if other != seat and self._row[other] >= 0:
                    self._row[other], self._ending, self._changed = -1, None, True
                    self.live -= 1

    def row(self, seat: int) -> int | None:
        """The row of its plan that a seat runs next; None behind its last."""
        _, rows = self._held(seat)
        at = int(self._row[seat])
        if at >= 0 and (led := self._led.get(seat)) is not None:
            return led.course.rows - led.ready
        return None if at < 0 else at - rows.first

    def coming(self) -> tuple[Placed, ...]:
        """The packings of the calls that the seats make until all are at their ends."""
        row, packings = self._row, [self._due]
        while (row >= 0).any():
            row = self.rows.next[row]
            packings.append(self._packing(row))
        return tuple(packings)

    def _packing(self, row: np.ndarray) -> Placed:
        """The packing of the calls that seats at these rows make."""
        return self._packings.of(self.rows.kind[row])

    def _move(self, row: np.ndarray, packing: Placed) -> list[int]:
        """All seats are at these rows now, whose calls are packed so; the seats that came to their end."""
        before, self._row, self._ending = self._row, row, None
        self._steps += 1
        if packing is self._due:  # who ends changes it
            return []
        self._due = packing
        ended: list[int] = (row < before).nonzero()[0].tolist()  # rows of a plan rise until it ends
        self.live -= len(ended)
        return ended

    def _check_room(self, entries: int) -> None:
        taken = self._entries - sum(self._jobs[seat][0].plan.entries for seat in self.ending)
        if taken + entries > self.capacity.room:
            raise BatchFull(
                f"the samples here take {taken} entries of the network's batch and this one "
                f"{entries}, of {self.capacity.room}; release one first"
            )

    def _held(self, seat: int) -> tuple[Job, Rows]:
        whole = type(seat) is int or (isinstance(seat, Integral) and not isinstance(seat, bool))
        if not whole or seat not in self._jobs:
            raise ValueError(
                f"nobody has seat {seat!r}: it was released already, or is none of "
                f"0 to {self.capacity.seats - 1}"
            )
        return self._jobs[seat]
