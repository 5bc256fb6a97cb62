"""A request's body, read as strict JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from .refused import JSON, Refused

LARGE = 1 << 18  # bytes of JSON, which take some milliseconds, on the loop's thread
# Values that a body may hold beside those of its samples, and of each: seed, class, scale and concepts.
VALUES, EACH = 1 << 14, 32
DIGITS = 400  # of a number: each double has a text that is shorter
PART = 1 << 18  # bytes that are looked through at a time


async def read(request: Request, samples: int) -> dict[str, Any]:
    """The object that a body is. The guard counts its bytes and seconds. Raises Refused.

    samples  that a request may ask for
    """
    form = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if form != JSON:
        # A page of another site may send other types without asking first.
        raise Refused(
            415, f"the body's content-type is {form[:80]!r}; send {JSON}", "type", "content-type"
        )
    body = await request.body()
    _count(body, VALUES + EACH * samples)
    made = await run_in_threadpool(parsed, body) if len(body) > LARGE else parsed(body)
    if not isinstance(made, dict):
        raise Refused(422, "the body is no JSON object; give one, as {...}", "json")
    return made


def _count(body: bytes, most: int) -> None:
    """Raises Refused where a body has more values than any request: to read them takes the loop's time, and
    a multiple of its bytes."""
    found = 0
    for start in range(0, len(body), PART):
        part = body[start : start + PART]
        found += part.count(b",") + part.count(b"[") + part.count(b"{")
        if found > most:
            raise Refused(413, f"the body holds more than {most} values", "too_large")


def parsed(body: bytes) -> Any:
    """Of JSON as its standard has it: each key once, no NaN, no infinity."""
    try:
        made = json.loads(
            body.decode(), object_pairs_hook=_once, parse_constant=_constant, parse_int=_whole,
            parse_float=_real,
        )  # fmt: skip
        if b"\\u" in body:  # half of a pair of surrogates is no text
            json.dumps(made, ensure_ascii=False).encode()
        return made
    except UnicodeError:
        raise Refused(
            400, "the body is no UTF-8, or has half of a pair of surrogates", "json"
        ) from None
    except RecursionError:
        raise Refused(400, "the body's JSON is nested too deep", "json") from None
    except json.JSONDecodeError as error:
        raise Refused(400, f"the body is no JSON: {error}", "json") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        count = Counter(name for name, _ in pairs)
        twice = next(name for name in made if count[name] > 1)
        raise Refused(422, f"the body has {twice[:80]!r} twice; leave one out", "json", twice[:80])
    return made


def _constant(text: str) -> Any:
    raise Refused(400, f"the body holds {text}, which is no JSON; give finite numbers", "json")


def _whole(digits: str) -> int:
    _few(digits)
    return int(digits)


def _real(digits: str) -> float:
    _few(digits)
    if not math.isfinite(made := float(digits)):
        raise Refused(422, f"the body holds {digits}, which is too large for a number", "json")
    return made


def _few(digits: str) -> None:
    if len(digits) > DIGITS:
        raise Refused(422, f"the body holds a number of {len(digits)} digits", "json")
