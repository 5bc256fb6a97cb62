"""What is seen of a run between its rows: a bar, a callback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

from torch import Tensor
from tqdm import tqdm

from ..executors import Batch
from ..executors.base import After
from ..executors.course import Course
from ..plan import Plan


@dataclass(frozen=True)
class Progress:
    """What a callback sees after a row that completes a step.

    row       index of the row, of `rows`
    t         time of x
    x         [B, *shape], the state; a view, copy it to keep it
    denoised  [B, *shape], the network's estimate of x0 at that row's call; a view
    """

    row: int
    rows: int
    t: float
    x: Tensor
    denoised: Tensor


def bar(plans: Sequence[Plan], courses: Sequence[Course], shown: bool | None) -> tqdm | None:
    """A progress bar over rows; None where it is not wanted, or nobody asked and this is no terminal.

    courses  that lead the samples, if any do: how many rows come only they may know
    """
    if shown is None:
        shown = sys.stderr.isatty()
    if courses:
        total: int | None = max(course.length for course in courses) or None
    else:
        total = max(len(plan.rows) for plan in plans) - 1
    return tqdm(total=total, unit="row", leave=False) if shown else None


def watcher(
    plans: Sequence[Plan],
    n: int,
    bar: tqdm | None,
    on_step: Callable[[Progress], None] | None,
    every: int,
    courses: Sequence[Course] = (),
) -> After | None:
    """What an executor calls after each row of n samples that began together; None where nobody looks.

    plans    of the samples; the first says which rows complete a step
    on_step  called after every so many of those, and after the last
    courses  that lead the samples, if any do
    """
    if bar is None and on_step is None:
        return None
    if courses:
        return _led(courses, bar, on_step, every)
    states = [row.state if i else None for i, row in enumerate(plans[0].rows)]
    complete = [i for i, state in enumerate(states) if state is not None]
    chosen = {*complete[every - 1 :: every], *complete[-1:]}
    length, rows = max(len(plan.rows) for plan in plans), count()

    def after(batch: Batch) -> None:
        i, step = next(rows), batch.buffers.step
        if bar is not None:
            bar.update(1 if i else 0)
        if on_step is not None and i in chosen:
            state = states[i]
            assert state is not None and step.denoised is not None
            on_step(Progress(i, length, state.t, step.slots[0][:n], step.denoised[:n]))

    return after


def _led(
    courses: Sequence[Course],
    bar: tqdm | None,
    on_step: Callable[[Progress], None] | None,
    every: int,
) -> After:
    """The watcher of samples that are led: each row may complete a step, and nobody knows how many come.
    Of the first sample is t."""
    firsts: list[int] = []
    at = 0
    for course in courses:  # seats are given in order
        firsts += range(at, at + course.samples)
        at += len(course.jobs)
    rows = count()

    def after(batch: Batch) -> None:
        i, step = next(rows), batch.buffers.step
        if bar is not None:
            bar.update(1 if i else 0)
        state = courses[0].state
        if on_step is None or not i or state is None or (i % every and batch.live):
            return
        assert step.denoised is not None
        length = max(i + 1, *(course.length for course in courses))
        on_step(Progress(i, length, state.t, step.slots[0][firsts], step.denoised[firsts]))

    return after
