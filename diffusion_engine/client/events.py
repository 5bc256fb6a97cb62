"""What a stream says of a request: server-sent events, line by line."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import Lost, said
from .samples import Samples


@dataclass(frozen=True, eq=False)
class Event:
    """Something that became of a request.

    kind      queued; started; row, when one of its samples has done a row; preview, a row with the estimate
              of the clean image; restarted, where its worker died and it is made again; done, with samples
    id        of the request
    sample    which of the request's samples, of rows and previews
    row       of its plan, 0 for the draw of the prior
    rows      how many its plan has
    denoised  [*shape] float32, of previews
    made      the samples, of done
    """

    kind: str
    id: str
    sample: int = 0
    row: int = 0
    rows: int = 0
    denoised: np.ndarray | None = None
    made: Samples | None = None


class Lines:
    """Puts the lines of a stream together to events (WHATWG HTML, 9.2.6)."""

    def __init__(self) -> None:
        self._kind, self._data = "", list[str]()
        self._done = False

    def feed(self, line: str) -> Event | None:
        """Takes a line without its end: the event that it ends, or None. Raises ClientError where the request
        failed, ValueError where it says what no server says."""
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                self._kind = value
            elif field == "data":
                self._data.append(value)
            return None  # comments keep the connection; id and retry have no use here
        kind, text = self._kind, "\n".join(self._data)
        self._kind, self._data = "", []
        self._done |= kind == "done"
        return _event(kind, json.loads(text)) if text else None

    def end(self) -> None:
        """There are no more lines. Raises Lost where the request has not ended."""
        if not self._done:
            raise Lost("the stream ended before the request did", unsent=False)


def _event(kind: str, data: dict[str, Any]) -> Event:
    if kind == "error":
        raise said(data, None)
    content = base64.b64decode(data.get("safetensors", ""))
    if kind == "done":
        return Event(kind, data["id"], made=Samples.read(content))
    sample, row, rows = (int(data.get(name, 0)) for name in ("sample", "row", "rows"))
    return Event(kind, data["id"], sample, row, rows, _denoised(content) if content else None)


def _denoised(content: bytes) -> np.ndarray:
    from safetensors.numpy import load

    return load(content)["denoised"]
