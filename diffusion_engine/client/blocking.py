"""`Client`: a server's samples, for threads."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, Self, TypeVar

import httpx

from . import talks
from .connection import lost, options, request
from .events import Event, Lines
from .messages import Ask
from .samples import Samples
from .talks import Talk

T = TypeVar("T")


class Client:
    """Asks a server for samples, and waits for its answers.

    base_url   of the server, as http://127.0.0.1:8000
    uds        a Unix socket in place of an address
    key        that the server asks for
    timeout    seconds without a byte of an answer; None waits as long as it takes
    retries    how often a request is sent again: where the server is full or not ready, or the connection
               was lost and it makes the same samples or was never seen
    transport  httpx's, in place of a connection

    A context manager, for any thread. Raises ValueError where an argument makes no sense.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        uds: str | os.PathLike[str] | None = None,
        key: str | None = None,
        timeout: float | None = 600.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retries = talks.number(retries)
        if uds is not None:
            transport = httpx.HTTPTransport(uds=os.fspath(uds))
        self._http = httpx.Client(transport=transport, **options(base_url, key, timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def sample(self, spec: Any = None, n: int | None = None, **request: Any) -> Samples:
        """Samples, when they are made.

        spec     a Spec, the name of a solver, a mapping of a Spec's keys, or None for the model's own
        n        how many samples; None follows seeds, condition or x
        request  model, seed or seeds, condition, negative, guidance, compose, adapter, priority, deadline,
                 x, mask, known and noise as in Engine.submit; and keys of a Spec, such as steps. Conditions
                 of a model that reads text are prompts: "a red heart" for all, or one a sample

        The seed that nobody gives is drawn here. Raises ValueError where the request is wrong, ClientError.
        """
        return self._run(talks.sample(spec, {"n": n, **request}, self._retries))

    def stream(self, spec: Any = None, n: int | None = None, **request: Any) -> Stream:
        """The same request as of `sample`, and what becomes of it, for a `for`.

        request  also preview: rows between two previews
        """
        talk = talks.opened(spec, {"n": n, **request}, self._retries)
        return Stream(self._run(talk, stream=True))

    def submit(self, spec: Any = None, n: int | None = None, **request: Any) -> Remote:
        """The same request as of `sample`, left with the server, which keeps its samples for a while."""
        talk = talks.submitted(spec, {"n": n, **request}, self._retries)
        return Remote(self, self._run(talk))

    def request(self, id: str) -> Remote:
        """A request that was left with the server, by its id."""
        return Remote(self, id)

    def models(self) -> list[dict[str, Any]]:
        """What the server serves, the default first: id, shape, classes, default Spec."""
        return self._run(talks.models(self._retries))

    def ready(self) -> bool:
        """Whether the server takes requests now; False, too, where it is not reached."""
        return self._run(talks.ready())

    def _run(self, talk: Talk[T], stream: bool = False) -> T:
        """What a talk returns. A stream's answer is left open."""
        try:
            step = next(talk)
            while True:
                if isinstance(step, float):
                    time.sleep(step)
                    step = next(talk)
                    continue
                try:
                    response = self._send(step, stream)
                except httpx.TransportError as error:
                    step = talk.throw(lost(error))
                else:
                    step = talk.send(response)
        except StopIteration as end:
            made: T = end.value
            return made

    def _send(self, ask: Ask, stream: bool) -> httpx.Response:
        response = self._http.send(self._http.build_request(**request(ask)), stream=stream)
        if stream and response.is_error:
            response.read()
        return response


class Stream(Iterator[Event]):
    """The events of a request, to its end. Who leaves the `for`, or the `with`, before it gives the request
    up.

    response  whose lines they are
    """

    def __init__(self, response: httpx.Response) -> None:
        self._response, self._events = response, _events(response)

    def __next__(self) -> Event:
        return next(self._events)

    def close(self) -> None:
        """Hangs up, which gives the request up."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _events(response: httpx.Response) -> Iterator[Event]:
    lines = Lines()
    try:
        for line in response.iter_lines():
            if (event := lines.feed(line)) is not None:
                yield event
        lines.end()
    except httpx.TransportError as error:
        raise lost(error) from None
    finally:
        response.close()


class Remote:
    """A request that was left with the server.

    client  that left it there
    id      of the request
    """

    def __init__(self, client: Client, id: str) -> None:
        self._client, self.id = client, id

    def status(self) -> str:
        """queued, running, done, cancelled or failed."""
        return str(self.about()["status"])

    def about(self) -> dict[str, Any]:
        """What the server says of it: status, model, rows, done_rows, ..."""
        return self._client._run(talks.about(self.id, self._client._retries))

    def result(self, timeout: float | None = None) -> Samples:
        """The samples, when they are done.

        timeout  seconds to wait; None waits as long as it takes
        Raises TimeoutError after that, GivenUp, Failed and ClientError.
        """
        return self._client._run(talks.result(self.id, timeout, self._client._retries))

    def cancel(self) -> bool:
        """Gives the request up, or lets the server forget its samples. False where it has ended already."""
        return self._client._run(talks.cancelled(self.id, self._client._retries))
