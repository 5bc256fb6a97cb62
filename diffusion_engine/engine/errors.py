"""Why the engine did not take a request, or did not finish it."""

from __future__ import annotations

import sys
import traceback


class EngineError(RuntimeError):
    """What an engine refuses, or could not do."""


class QueueFull(EngineError):
    """As many requests wait as the queue holds."""


class EngineClosed(EngineError):
    """The engine takes nothing more."""


class Cancelled(EngineError):
    """The request was given up: by its caller, by the engine's end, or at its deadline."""


class DeadlineMissed(Cancelled):
    """The request could not be done by its deadline, or was not."""


class NonFinite(EngineError):
    """A sample met a value that is not finite."""


def bare(error: BaseException) -> BaseException:
    """The error without what its frames hold, and without the frames that still run: a caller who keeps it
    would keep a failed call's tensors, and the next call could not have their memory."""
    running, frame = set(), sys._getframe().f_back
    while frame is not None:
        running.add(frame)
        frame = frame.f_back
    at: BaseException | None = error
    seen: set[int] = set()  # `raise error from error` is a circle
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        trace = at.__traceback__
        while trace is not None and trace.tb_frame in running:
            trace = trace.tb_next
        traceback.clear_frames(trace)
        at.__traceback__ = trace
        at = at.__cause__ or at.__context__
    return error
