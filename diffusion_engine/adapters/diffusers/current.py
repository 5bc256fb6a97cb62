"""Which run is a scheduler's in this thread or task."""

from __future__ import annotations

from contextvars import ContextVar
from weakref import WeakKeyDictionary

from .scheduler_run import Run

# A mapping is never changed: who copied the context, as a task does, keeps the runs of that moment. A
# scheduler that is gone takes its runs along.
_RUNS: ContextVar[WeakKeyDictionary[object, Run]] = ContextVar("runs")


def current(scheduler: object) -> Run | None:
    """The run that this thread or task began last, None where it began none."""
    runs = _RUNS.get(None)
    return None if runs is None else runs.get(scheduler)


def begin(scheduler: object, run: Run) -> None:
    """Makes a run this thread's or task's own, in place of the one it had."""
    runs = WeakKeyDictionary(_RUNS.get(None) or {})
    runs[scheduler] = run
    _RUNS.set(runs)
