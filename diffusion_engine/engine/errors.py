"""Why the engine did not take a request, or did not finish it."""

from __future__ import annotations


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
