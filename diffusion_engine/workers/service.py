"""`Service`: what the HTTP server stands on, whichever process the engine is in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from .messages import About, Asked, Made, Told


class Running(Protocol):
    """A request that was accepted.

    id      of the request
    status  queued, running, done, cancelled or failed
    rows    of its longest plan; cost: entries x rows of all samples
    """

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def cost(self) -> int: ...

    async def result(self) -> Made:
        """The samples, when they are done. Raises ServiceError."""

    def events(self, room: int = 64) -> AsyncIterator[Told]:
        """What becomes of it, to its end; of a slow reader's rows and previews the newest `room` wait."""

    def cancel(self, reason: str) -> bool:
        """Gives it up. False where it has ended already."""


class Service(Protocol):
    """Its methods are called from one asyncio loop.

    models  that are served, by name; known when `start` has returned
    """

    @property
    def models(self) -> Mapping[str, About]: ...

    async def start(self) -> None:
        """Returns when requests are taken. Raises ServiceError where a model cannot be served, and why."""

    async def close(self, drain: float = 30.0) -> None:
        """Takes nothing more, lets what was accepted end for so many seconds, and cancels the rest."""

    def objection(self) -> str | None:
        """Why it takes no requests now; None where it does."""

    async def lost(self) -> str:
        """Returns where it will never take requests again, and says why."""

    async def submit(self, asked: Asked) -> Running:
        """Takes a request: returns when a worker found that it suits the network.

        Raises ValueError where it does not, TooLarge, Full, NotReady and Quarantined, and Failed where its
        network cannot be batched. That its deadline cannot be met `result` says.
        """

    def snapshot(self) -> dict[str, Any]:
        """What it is doing, as JSON-able values: waiting, running, restarts, and the engines' snapshots."""
