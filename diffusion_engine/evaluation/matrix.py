"""Many rows of figures: what they will take, and those that a table lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from .reference import Reference
from .run import BATCH, Case, Pace, Row, make, measured, pace_of, row
from .table import Table

FIGURES_S = 1.5  # that the figures of a row take, about


def evaluations(case: Case) -> int:
    """Of the network, for all samples: calls, and two branches where it is guided."""
    branches = 2 if case.guidance != 1.0 else 1
    return case.sampler().plan().nfe * branches * case.n


def estimate(case: Case, pace: Pace) -> float:
    """The seconds that a row will take."""
    whole = -(-case.n // BATCH) * BATCH / case.n  # a batch that is not full costs as much
    return evaluations(case) * whole * pace.seconds + FIGURES_S


def paces(cases: Sequence[Case], executors: Sequence[str], **how: Any) -> dict[int, Pace]:
    """That of each network, by its identity, measured in a batch or two."""
    return {
        identity: pace_of(list(same), executors, **how)
        for identity, same in groupby(cases, key=lambda case: id(case.network))
    }


def missing(cases: Sequence[Case], table: Table | None) -> list[Case]:
    """The cases without a row, in their order."""
    return [case for case in cases if table is None or table.of(case.key) is None]


def rows(
    cases: Sequence[Case],
    paces: dict[int, Pace],
    reference: Reference,
    *,
    table: Table | None = None,
    more: Callable[[Case], Row] | None = None,
    progress: bool = False,
    **how: Any,
) -> Iterator[Row]:
    """The rows of cases, one after another, each written to the table before the next begins.

    more  columns beside the figures, of each case
    how   of Sampler, as `paces` was given: threads, device, ...
    """
    how = {name: value for name, value in how.items() if name != "threads"}  # the executor has them
    for case in cases:
        pace = paces[id(case.network)]
        made = make(case.sampler(executor=pace.executor, **how), case, progress)
        found = row(case, made, measured(case, made, reference), pace.name)
        if more is not None:
            found |= more(case)
        if table is not None:
            table.add(found)
        yield found


def left(cases: Sequence[Case], paces: dict[int, Pace]) -> str:
    """How long these cases will take, as a sentence's end."""
    seconds = sum(estimate(case, paces[id(case.network)]) for case in cases)
    ends = time.strftime("%H:%M", time.localtime(time.time() + seconds))
    return f"{len(cases)} rows, some {seconds / 60:.1f} minutes, until {ends}"
