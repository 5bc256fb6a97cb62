"""The options of a solver, which come from Python, a command line or a recipe, as its fields take them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np


def _number(value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or math.isnan(value):
        raise TypeError
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError
    return int(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError
    return bool(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _wholes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, (tuple, list)):
        raise TypeError
    return tuple(map(_whole, value))


# By the annotation of a field.
KINDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "float": ("a number", _number),
    "int": ("a whole number", _whole),
    "bool": ("true or false", _flag),
    "str": ("a text", _text),
    "tuple[int, ...]": ("a list of whole numbers", _wholes),
}


def fitting(field: dataclasses.Field, value: Any) -> Any:
    """The value of a solver's option as plain Python. Raises ValueError where it is of another kind."""
    kind, _, optional = str(field.type).partition(" | ")
    if kind not in KINDS or (value is None and optional):
        return value
    what, plain = KINDS[kind]
    try:
        return plain(value)
    except TypeError:
        raise ValueError(f"option {field.name}={value!r} is not {what}; give {what}") from None
