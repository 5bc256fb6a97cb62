"""Why a server did not make what was asked of it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

WRONG = "the server answered without a reason"


class ClientError(RuntimeError):
    """What a server could not do, or did not answer.

    message  a sentence
    status   of HTTP, None where there was no answer
    code     the reason as one word
    param    what of the request is wrong
    """

    def __init__(
        self,
        message: str,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param


class Refused(ClientError, ValueError):
    """A ClientError where the request is wrong, or its key: asked again, it is refused again."""


class Unavailable(ClientError):
    """A ClientError where the server takes no such request now.

    retry_after  seconds until it may; None where it does not say
    """

    retry_after: float | None = None


class Failed(ClientError):
    """A ClientError where the request was taken, and could not be made."""


class GivenUp(ClientError):
    """A ClientError where the request was cancelled, or not done by its deadline."""


class Lost(ClientError):
    """The connection ended before the answer did, or could not be made.

    message  a sentence
    unsent   whether the server never saw the request
    """

    def __init__(self, message: str, unsent: bool) -> None:
        super().__init__(message)
        self.unsent = unsent


class Silent(Lost, TimeoutError):
    """Lost, because the server said nothing for longer than the client's `timeout`."""


# Those whose status says too little.
CODES: dict[str | None, type[ClientError]] = {"failed": Failed, "given_up": GivenUp}


def refusal(response: httpx.Response) -> ClientError:
    """What an answer that is no success says."""
    error = said(_json(response.content), response.status_code)
    if isinstance(error, Unavailable):
        error.retry_after = _seconds(response.headers.get("retry-after"))
    return error


def said(body: Any, status: int | None) -> ClientError:
    """The error of a body {"error": {"message", "type", "code", "param"}}.

    status  None where it stands in an answer that succeeded: the request was taken before
    """
    about = body.get("error") if isinstance(body, dict) else None
    about = about if isinstance(about, dict) else {}
    message, code, param = about.get("message"), about.get("code"), about.get("param")
    return _kind(status, code)(str(message or WRONG), status, code, param)


def _kind(status: int | None, code: str | None) -> type[ClientError]:
    if code in CODES:
        return CODES[code]
    if status in (429, 503):
        return Unavailable
    return Refused if status is not None and 400 <= status < 500 else Failed


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _seconds(given: str | None) -> float | None:
    """Of a Retry-After, which may be a date too."""
    try:
        seconds = float(given or "")
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
