"""What is said to a server, as generators: they yield what is sent and how long to wait, and are given the
answers. Who runs them has the connection, in a thread or in asyncio.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import httpx

from .. import checks
from .errors import ClientError, Failed, Lost, Silent, Unavailable, refusal, said
from .messages import EVENTS, TENSORS, Ask, body
from .samples import Samples

PATIENCE = 30.0  # a server that wants to be left alone for longer is not asked again
FIRST = 0.25  # seconds before a second try where the server says nothing, doubled with each
SOON, SELDOM = 0.02, 1.0  # seconds between two looks at a request, doubled with each
SAMPLES, REQUESTS = "/v1/samples", "/v1/requests"

T = TypeVar("T")
Talk = Generator[Ask | float, httpx.Response, T]


def answered(ask: Ask, retries: int) -> Talk[httpx.Response]:
    """The answer to a message, sent again where that is safe.

    retries  how often
    Raises ClientError.
    """
    for left in range(retries, -1, -1):
        pause = FIRST * 2 ** (retries - left) * random.uniform(0.5, 1.0)
        try:
            response = yield ask
        except Lost as lost:
            twice = ask.again and not isinstance(lost, Silent)
            if not left or not (twice or lost.unsent):
                raise
        else:
            if response.status_code < 400:
                return response
            error = refusal(response)
            pause = _pause(error, pause)
            if not left or pause > PATIENCE:
                raise error
        yield pause
    raise AssertionError("the last try returns or raises")


def _pause(error: ClientError, own: float) -> float:
    """Seconds until it may be asked again, infinity for never."""
    if not isinstance(error, Unavailable):
        return float("inf")
    return own if error.retry_after is None else error.retry_after


def sample(spec: Any, given: Mapping[str, Any], retries: int) -> Talk[Samples]:
    """Asks for samples, and waits for them."""
    ask = Ask("POST", SAMPLES, body(spec, given), TENSORS)
    return samples((yield from answered(ask, retries)))


def opened(spec: Any, given: Mapping[str, Any], retries: int) -> Talk[httpx.Response]:
    """Asks for samples and for what becomes of them, which the lines of the answer say."""
    ask = Ask("POST", SAMPLES, body(spec, given) | {"stream": True}, EVENTS)
    return (yield from answered(ask, retries))


def submitted(spec: Any, given: Mapping[str, Any], retries: int) -> Talk[str]:
    """Leaves a request with the server: its id.

    It is not sent again where the answer was lost: the first may be there.
    """
    ask = Ask("POST", SAMPLES, body(spec, given) | {"wait": False}, again=False)
    return str((yield from told(ask, retries))["id"])


def result(id: str, timeout: float | None, retries: int) -> Talk[Samples]:
    """Those of a request that was left with the server, when they are made.

    timeout  seconds to wait; None waits as long as it takes
    Raises TimeoutError after that, and ClientError.
    """
    until = math.inf if timeout is None else time.monotonic() + timeout
    pause = SOON
    while True:
        response = yield from answered(Ask("GET", f"{REQUESTS}/{id}", accept=TENSORS), retries)
        if _packed(response):
            return samples(response)
        about = _read(response)
        if "error" in about:
            raise said(about, None)
        if time.monotonic() >= until:
            raise TimeoutError(f"request {id} is {about['status']} after {timeout:g} s")
        yield min(pause, max(0.0, until - time.monotonic()))
        pause = min(2 * pause, SELDOM)


def cancelled(id: str, retries: int) -> Talk[bool]:
    """Gives a request up. False where it has ended already."""
    before = yield from told(Ask("DELETE", f"{REQUESTS}/{id}"), retries)
    return before["status"] == "cancelled"


def about(id: str, retries: int) -> Talk[dict[str, Any]]:
    """What the server says of a request."""
    response = yield from answered(Ask("GET", f"{REQUESTS}/{id}", accept=TENSORS), retries)
    if _packed(response):
        return samples(response).about | {"status": "done"}
    return _read(response)


def models(retries: int) -> Talk[list[dict[str, Any]]]:
    """What the server serves."""
    listed: list[dict[str, Any]] = (yield from told(Ask("GET", "/v1/models"), retries))["data"]
    return listed


def ready() -> Talk[bool]:
    """Whether the server takes requests now."""
    try:
        yield from answered(Ask("GET", "/readyz"), 0)
    except (Unavailable, Lost):
        return False
    return True


def told(ask: Ask, retries: int) -> Talk[dict[str, Any]]:
    """What an answer in JSON says."""
    return _read((yield from answered(ask, retries)))


def _read(response: httpx.Response) -> dict[str, Any]:
    try:
        made: dict[str, Any] = response.json()
    except ValueError:
        raise Failed("the answer is no JSON; is that a server of this engine?") from None
    return made


def _packed(response: httpx.Response) -> bool:
    """Whether it holds samples."""
    return bool(response.headers.get("content-type") == TENSORS)


def samples(response: httpx.Response) -> Samples:
    """Those of an answer."""
    try:
        return Samples.read(response.content)
    except ValueError as error:
        raise Failed(str(error), response.status_code) from None


def number(retries: Any) -> int:
    """How often a request is sent again, checked."""
    return checks.whole("retries", retries, 0, "how often a request is sent again, 0 for never")
