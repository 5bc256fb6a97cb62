"""Waiting for samples while the client is there: who hangs up gives the request up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..workers.errors import ServiceError
from ..workers.messages import About, Asked, Made, Told
from .front import Front
from .kept import Entry
from .refused import Refused

T = TypeVar("T")
BEAT = (
    15.0  # seconds of silence after which a stream sends a comment: what stands between may cut it
)
GONE = "its client hung up"


async def until_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """What a coroutine returns. Raises Refused, after it was cancelled, where the client hangs up before."""
    done = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise Refused(499, GONE, "hung_up")
        return done.result()
    finally:
        for task in (done, gone):
            task.cancel()
        await asyncio.gather(done, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def taken(front: Front, asked: Asked, about: About, request: Request) -> Entry:
    """A request that the service took, while its client is there. Raises Refused."""
    return await until_gone(front.take(asked, about), request.receive)


async def result(front: Front, asked: Asked, about: About, request: Request) -> tuple[Entry, Made]:
    """A request and its samples, while its client waits. Raises Refused."""
    return await until_gone(_made(front, asked, about), request.receive)


async def _made(front: Front, asked: Asked, about: About) -> tuple[Entry, Made]:
    entry = await front.take(asked, about)
    try:
        return entry, await front.made(entry)
    except ServiceError as error:
        entry.error = front.refused(error)
        raise entry.error from None
    finally:
        _over(front, entry)


def _over(front: Front, entry: Entry) -> None:
    """Nobody waits any more."""
    entry.cancel(GONE)  # does nothing where it has ended
    front.requests.end(entry)


Message = tuple[str, Mapping[str, Any]]


class Stream(Response):
    """Server-sent events of a request.

    tell    the events that a client sees of one of the service
    finish  the last ones, of the samples
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        front: Front,
        entry: Entry,
        tell: Callable[[Told], Awaitable[list[Message]]],
        finish: Callable[[Made], Awaitable[list[Message]]],
    ) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._front, self._entry, self._tell, self._finish = front, entry, tell, finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(head)
            await until_gone(self._pump(send), receive)
        except Refused:
            pass  # nobody is there to be told
        finally:
            _over(self._front, self._entry)

    async def _pump(self, send: Send) -> None:
        async for text in _beating(self._messages()):
            await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _messages(self) -> AsyncIterator[bytes]:
        try:
            async for told in self._entry.running.events():
                self._entry.saw(told)
                for message in await self._tell(told):
                    yield _written(message)
            for message in await self._finish(await self._front.made(self._entry)):
                yield _written(message)
        except ServiceError as error:
            self._entry.error = self._front.refused(error)
            yield _written(("error", self._entry.error.content()))


async def _beating(texts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, and comments where nothing comes for long."""
    while True:
        following = asyncio.ensure_future(anext(texts, None))
        try:
            while not (await asyncio.wait({following}, timeout=BEAT))[0]:
                yield b": still here\n\n"
        except BaseException:
            following.cancel()
            raise
        if (text := following.result()) is None:
            return
        yield text


def _written(message: Message) -> bytes:
    kind, data = message
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode(data))
