"""`AsyncClient`: a server's samples, for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, Self, TypeVar

import httpx

from . import talks
from .connection import lost, options, request
from .events import Event, Lines
from .messages import Ask
from .samples import Samples
from .talks import Talk

T = TypeVar("T")


class AsyncClient:
    """The same as Client, in coroutines; a task that is cancelled gives its request up.

    base_url, uds, key, timeout, retries  as of Client
    transport  httpx's, in place of a connection

    A context manager of `async with`, for one loop. Raises ValueError where an argument makes no sense.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        uds: str | os.PathLike[str] | None = None,
        key: str | None = None,
        timeout: float | None = 600.0,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retries = talks.number(retries)
        if uds is not None:
            transport = httpx.AsyncHTTPTransport(uds=os.fspath(uds))
        self._http = httpx.AsyncClient(transport=transport, **options(base_url, key, timeout))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.aclose()

    async def sample(self, spec: Any = None, n: int | None = None, **request: Any) -> Samples:
        """Samples, when they are made.

        spec, n, request  as in Client.sample, whose errors it raises
        """
        return await self._run(talks.sample(spec, {"n": n, **request}, self._retries))

    def stream(self, spec: Any = None, n: int | None = None, **request: Any) -> AsyncStream:
        """The same request as of `sample`, and what becomes of it, for an `async for`, which sends it.

        request  also preview, as in Client.stream
        """
        return AsyncStream(self, talks.opened(spec, {"n": n, **request}, self._retries))

    async def submit(self, spec: Any = None, n: int | None = None, **request: Any) -> AsyncRemote:
        """The same request as of `sample`, left with the server, which keeps its samples for a while."""
        talk = talks.submitted(spec, {"n": n, **request}, self._retries)
        return AsyncRemote(self, await self._run(talk))

    def request(self, id: str) -> AsyncRemote:
        """A request that was left with the server, by its id."""
        return AsyncRemote(self, id)

    async def models(self) -> list[dict[str, Any]]:
        """What the server serves, the default first: id, shape, classes, default Spec."""
        return await self._run(talks.models(self._retries))

    async def ready(self) -> bool:
        """Whether the server takes requests now; False, too, where it is not reached."""
        return await self._run(talks.ready())

    async def _run(self, talk: Talk[T], stream: bool = False) -> T:
        """What a talk returns. A stream's answer is left open."""
        try:
            step = next(talk)
            while True:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    step = next(talk)
                    continue
                try:
                    response = await self._send(step, stream)
                except httpx.TransportError as error:
                    step = talk.throw(lost(error))
                else:
                    step = talk.send(response)
        except StopIteration as end:
            made: T = end.value
            return made

    async def _send(self, ask: Ask, stream: bool) -> httpx.Response:
        message = self._http.build_request(**request(ask))
        response = await self._http.send(message, stream=stream)
        if stream and response.is_error:
            await response.aread()
        return response


class AsyncStream(AsyncIterator[Event]):
    """The events of a request, to its end. Who leaves the `async for`, or the `async with`, before it gives
    the request up.

    client  that sends it, as the talk says
    """

    def __init__(self, client: AsyncClient, talk: Talk[httpx.Response]) -> None:
        self._client, self._talk = client, talk
        self._response: httpx.Response | None = None
        self._events: AsyncIterator[Event] | None = None

    async def __anext__(self) -> Event:
        if self._events is None:
            self._events = _events(await self._opened())
        return await anext(self._events)

    async def _opened(self) -> httpx.Response:
        if self._response is None:
            self._response = await self._client._run(self._talk, stream=True)
        return self._response

    async def close(self) -> None:
        """Hangs up, which gives the request up."""
        if self._response is not None:
            await self._response.aclose()

    async def __aenter__(self) -> Self:
        await self._opened()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _events(response: httpx.Response) -> AsyncIterator[Event]:
    lines = Lines()
    try:
        async for line in response.aiter_lines():
            if (event := lines.feed(line)) is not None:
                yield event
        lines.end()
    except httpx.TransportError as error:
        raise lost(error) from None
    finally:
        await response.aclose()


class AsyncRemote:
    """A request that was left with the server; its methods are those of Remote, in coroutines.

    client  that left it there
    id      of the request
    """

    def __init__(self, client: AsyncClient, id: str) -> None:
        self._client, self.id = client, id

    async def status(self) -> str:
        """queued, running, done, cancelled or failed."""
        return str((await self.about())["status"])

    async def about(self) -> dict[str, Any]:
        """What the server says of it: status, model, rows, done_rows, ..."""
        return await self._client._run(talks.about(self.id, self._client._retries))

    async def result(self, timeout: float | None = None) -> Samples:
        """The samples, when they are done; timeout and errors are those of Remote.result."""
        return await self._client._run(talks.result(self.id, timeout, self._client._retries))

    async def cancel(self) -> bool:
        """Gives the request up, or lets the server forget its samples. False where it has ended already."""
        return await self._client._run(talks.cancelled(self.id, self._client._retries))
