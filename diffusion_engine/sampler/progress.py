"""What is seen of a run between its rows: a bar, a callback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from tqdm import tqdm

from ..executors.base import After
from ..executors.run import Run
from ..ops.step import StepArgs


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


def bar(total: int, shown: bool | None) -> tqdm | None:
    """A progress bar over rows; None where it is not wanted, or nobody asked and this is no terminal."""
    if shown is None:
        shown = sys.stderr.isatty()
    return tqdm(total=total, unit="row", leave=False) if shown else None


def watcher(
    run: Run, bar: tqdm | None, on_step: Callable[[Progress], None] | None, every: int
) -> After | None:
    """What an executor calls after each row; None where nobody looks.

    on_step  called after every so many rows that complete a step, and after the last
    """
    if bar is None and on_step is None:
        return None
    states = [row.state if i else None for i, row in enumerate(run.plans[0].rows)]
    complete = [i for i, state in enumerate(states) if state is not None]
    chosen = {*complete[every - 1 :: every], *complete[-1:]}

    def after(i: int, args: StepArgs) -> None:
        if bar is not None:
            bar.update(1 if i else 0)
        if on_step is not None and i in chosen:
            state, n = states[i], run.samples
            assert state is not None and args.denoised is not None
            on_step(Progress(i, run.length, state.t, args.slots[0][:n], args.denoised[:n]))

    return after
