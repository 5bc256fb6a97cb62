"""`Front`: what all routes share, the service and what is known of its requests."""

from __future__ import annotations

import asyncio
import hashlib
import time

from starlette.requests import Request

from ..workers.errors import GivenUp, NotReady, ServiceError
from ..workers.messages import About, Asked, Made
from ..workers.service import Service
from .counts import Counts
from .kept import Entry, Requests
from .refused import Refused, of_service
from .settings import Settings

AGAIN = 5.0  # seconds after which a client may ask again where nobody knows


class Front:
    """One a server.

    ending  why nothing more is taken, where the server ends
    taking  requests that the service looks at, and has not accepted yet
    began   seconds since 1970, for people
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service, self.settings = service, settings
        self.requests, self.counts = Requests(settings), Counts()
        self.ending: str | None = None
        self.taking = 0
        self.began = int(time.time())
        self._following: set[asyncio.Task[None]] = set()

    def objection(self) -> str | None:
        """Why nothing is taken now."""
        return self.ending or self.service.objection()

    def ready(self) -> None:
        """Raises Refused where nothing is taken now."""
        if reason := self.objection():
            raise of_service(NotReady(reason, AGAIN))

    def refused(self, error: ServiceError) -> Refused:
        """What a client is told of an error: one that the server's end gave up may ask another server."""
        if self.ending is not None and isinstance(error, GivenUp):
            return of_service(NotReady(str(error), AGAIN))
        return of_service(error)

    def started(self) -> None:
        """Raises Refused where the models are not known yet."""
        if not self.service.models:
            self.ready()

    def model(self, name: str | None) -> About:
        """A model by its name, or the default one. Raises Refused."""
        known = self.service.models
        wanted = self.settings.model if name is None else name
        if (about := known.get(wanted)) is None:
            raise Refused(
                404, f"there is no model {wanted[:80]!r}; there are {', '.join(known)}",
                "model_not_found", "model",
            )  # fmt: skip
        return about

    async def take(self, asked: Asked, about: About) -> Entry:
        """Submits a request. Raises Refused."""
        self.ready()
        self.taking += 1
        try:
            running = await self.service.submit(asked)
        except ServiceError as error:
            raise of_service(error) from None
        except ValueError as error:
            raise Refused(422, str(error), "unsuitable") from None
        finally:
            self.taking -= 1
        entry = Entry(running, asked, about)
        self.requests.add(entry)
        return entry

    def follow(self, entry: Entry) -> None:
        """Lets a request go on without a client; what it brought counts as a body until its end."""
        entry.left = True
        self.counts.bodies += entry.given
        task = asyncio.get_running_loop().create_task(self._followed(entry))
        self._following.add(task)

        def over(task: asyncio.Task[None]) -> None:
            self._following.discard(task)
            self.counts.bodies -= entry.given
            self.requests.end(entry)

        task.add_done_callback(over)

    async def _followed(self, entry: Entry) -> None:
        """To its end, for whoever asks later."""
        try:
            async for told in entry.running.events():
                entry.saw(told)
            entry.made = await self.made(entry)
        except ServiceError as error:
            entry.error = self.refused(error)

    async def made(self, entry: Entry) -> Made:
        """The samples of a request, when they are done. Raises ServiceError."""
        made = await entry.running.result()
        self.counts.took(made)
        return made


def front_of(request: Request) -> Front:
    """That of the server that got a request."""
    front: Front = request.app.state.front
    return front


def owner_of(request: Request) -> str:
    """Who asks: a fingerprint of the key, or "" where the server has none."""
    key: bytes = request.scope["state"].get("key", b"")
    return hashlib.sha256(key).hexdigest()[:16] if key else ""


def id_of(request: Request) -> str:
    """That the guard gave a request."""
    name: str = request.scope["state"]["id"]
    return name
