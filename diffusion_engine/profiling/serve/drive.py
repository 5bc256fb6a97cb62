"""An engine under a load: what becomes of each request, and who sits where meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ...engine import Engine, EngineError
from ...engine.lane import Lane
from ...engine.ticket import Ticket
from .load import Arrival

EVERY = 0.02  # seconds between two looks at the seats


@dataclass(eq=False)
class Timing:
    """Seconds after a load's beginning at which a request came, showed its first preview, and was done;
    None where it did not."""

    came: float
    images: int
    preview: float | None = None
    done: float | None = None


@dataclass(eq=False)
class Course:
    """A load from its beginning to its end.

    timings    of its requests, in their order
    seats      (seconds, seats taken, requests that wait) as time went by
    occupancy  seats taken over all, mean of the rows; None where nobody counted
    """

    timings: list[Timing]
    seats: list[tuple[float, int, int]] = field(default_factory=list)
    occupancy: float | None = None

    @property
    def images(self) -> int:
        """That were done."""
        return sum(timing.images for timing in self.timings if timing.done is not None)

    @property
    def seconds(self) -> float:
        """From the first request to the last sample."""
        ends = [timing.done for timing in self.timings if timing.done is not None]
        return max(ends, default=0.0) - min(timing.came for timing in self.timings)


class Static(Engine):
    """Static batching by the same engine: nobody gets a seat until all have ended; those who have are not
    called. It stands beside continuous batching in measurements."""

    def __init__(self, *given: Any, **how: Any) -> None:
        super().__init__(*given, **how)
        self._loop.lane = _StaticLane


class _StaticLane(Lane):
    def admit(self, now: float) -> list[Ticket]:
        return [] if self.seats else super().admit(now)


def drive(engine: Engine, load: Sequence[Arrival]) -> Course:
    """Submits every request at its time, reads its events up to the first preview, and waits for all."""
    return asyncio.run(_drive(engine, load))


async def _drive(engine: Engine, load: Sequence[Arrival]) -> Course:
    before = engine.snapshot()
    began = time.perf_counter()
    course = Course([Timing(one.at, len(one.seeds)) for one in load])
    looking = asyncio.create_task(_look(engine, course, began))
    waiting = []
    for one, timing in zip(load, course.timings, strict=True):
        early = one.at - (time.perf_counter() - began)
        await asyncio.sleep(max(0.0, early))
        waiting.append(asyncio.create_task(_ask(engine, one, timing, began)))
    await asyncio.gather(*waiting)
    looking.cancel()
    after = engine.snapshot()
    rows, taken = (after[name] - before[name] for name in ("rows", "seat_rows"))
    course.occupancy = taken / (rows * engine.capacity) if rows else None
    return course


async def _ask(engine: Engine, one: Arrival, timing: Timing, began: float) -> None:
    kind = one.kind
    with suppress(EngineError):  # the queue is full, or it is late
        handle = engine.submit(
            kind.spec,
            priority=kind.priority,
            deadline=kind.deadline,
            preview=kind.preview,
            **one.request,
        )
        if kind.preview:
            with handle.events() as events:
                async for event in events:
                    if event.kind == "preview":
                        timing.preview = time.perf_counter() - began
                        break
        await handle
        timing.done = time.perf_counter() - began


async def _look(engine: Engine, course: Course, began: float) -> None:
    while True:
        now = engine.snapshot()
        course.seats.append((time.perf_counter() - began, now["occupied"], now["queued"]))
        await asyncio.sleep(EVERY)
