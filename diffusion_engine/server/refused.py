"""What a client is told where a request is refused: a sentence, in the shape that OpenAI's clients read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from ..workers.errors import (
    Failed,
    Full,
    GivenUp,
    NotReady,
    Quarantined,
    ServiceError,
    TooLarge,
    WorkerLost,
)

JSON = "application/json"
BAD, WRONG, HERE = "invalid_request_error", "server_error", "not_ready"
# Of what a service raises: the status, the type and the code. What a body asks for is never a 5xx: the
# network may raise or overflow for it alone.
SERVICE: dict[type[ServiceError], tuple[int, str, str]] = {
    Full: (429, "rate_limit_error", "queue_full"),
    NotReady: (503, HERE, "not_ready"),
    Quarantined: (503, HERE, "quarantined"),
    TooLarge: (413, BAD, "too_large"),
    WorkerLost: (502, WRONG, "worker_lost"),
    Failed: (422, BAD, "failed"),
    GivenUp: (409, BAD, "given_up"),
}


class Refused(Exception):
    """A request that is answered with an error.

    status       of the answer
    code         a word for programs
    param        the key of the body, or the header, that is wrong
    retry_after  seconds
    headers      more of the answer's
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str = "invalid",
        param: str | None = None,
        kind: str = BAD,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.kind = status, code, param, kind
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after)))

    def content(self) -> dict[str, Any]:
        """The body of the answer."""
        # A lone surrogate, as JSON can hold it, has no UTF-8.
        said = str(self).encode(errors="replace").decode()
        about = {"message": said, "type": self.kind, "code": self.code, "param": self.param}
        return {"error": about}

    def answer(self) -> Response:
        return Response(
            msgspec.json.encode(self.content()), self.status, self.headers, media_type=JSON
        )


def of_service(error: ServiceError) -> Refused:
    """What a client is told of an error of the service."""
    status, kind, code = next(
        (about for known, about in SERVICE.items() if isinstance(error, known)),
        (502, WRONG, "service"),
    )
    retry = getattr(error, "retry_after", None)
    return Refused(status, str(error), code, kind=kind, retry_after=retry)
