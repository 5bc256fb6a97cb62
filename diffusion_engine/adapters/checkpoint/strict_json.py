"""JSON of files from elsewhere: one object, of a bounded size and depth, in which every name stands once."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from ... import checks

DEPTH = 16


def parsed(data: bytes, where: str, depth: int = DEPTH) -> dict[str, Any]:
    """The object that UTF-8 text holds.

    where  what it is, for errors

    Raises ValueError where it is no JSON object, a name stands twice in it, a number is not finite, or it
    goes deeper than `depth`.
    """
    try:
        made = json.loads(
            data.decode(), object_pairs_hook=_once, parse_constant=_refused, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON that is taken here ({error})") from error
    if not isinstance(made, dict):
        raise ValueError(f"{where} holds a {type(made).__name__}: it has to be an object, {{...}}")
    if _deeper(made, depth):
        raise ValueError(f"{where} is nested deeper than {depth} levels: nothing here needs that")
    return made


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"{checks.said(counts.most_common(1)[0][0])} stands twice")
    return made


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    made = float(text)
    if math.isinf(made):
        raise ValueError(f"{text[:40]} is larger than any number here")
    return made


def _deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper(each, depth - 1) for each in inner)
