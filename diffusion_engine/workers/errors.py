"""Why a service does not take a request, or does not finish it."""

from __future__ import annotations

from typing import Any

import msgspec


class ServiceError(RuntimeError):
    """What a service could not do."""


class Full(ServiceError):
    """As many requests wait as the queue holds.

    retry_after  seconds until there may be room
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(ServiceError):
    """No worker serves now: it starts, is replaced, or the service ends.

    retry_after  seconds until there may be one; None where there will be none
    """

    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Quarantined(ServiceError):
    """A request like it ended workers, and is refused for a while.

    retry_after  seconds until it is taken again
    """

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLarge(ServiceError, ValueError):
    """A request that costs more than one may."""


class WorkerLost(ServiceError):
    """The workers that made the request ended, as often as it is tried."""


class Failed(ServiceError):
    """The request failed in its worker: a value that is not finite, or what the network raised."""


class GivenUp(ServiceError):
    """The request was given up: cancelled, or not done by its deadline."""


class Fault(msgspec.Struct, frozen=True):
    """An error as it goes from one process to another.

    name  of its class
    """

    name: str
    message: str
    retry_after: float | None = None

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """Of a ServiceError, or of a ValueError."""
        return cls(type(error).__name__, str(error), getattr(error, "retry_after", None))

    def error(self) -> Exception:
        """What is raised at the other side."""
        kind: Any = KINDS.get(self.name, Failed)
        if kind in WITH_TIME:
            return kind(self.message, self.retry_after)
        return kind(self.message)


WITH_TIME = (Full, NotReady, Quarantined)
KINDS = {
    kind.__name__: kind for kind in (*WITH_TIME, TooLarge, WorkerLost, Failed, GivenUp, ValueError)
}
