"""What users give, checked: each check returns Python's own value, or raises ValueError in a sentence."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

LONGEST = 2000  # characters of a prompt: encoders read some dozen words of it


def plain(given: Any) -> Any:
    """A number of numpy or torch as Python's; all else as it is."""
    return given.item() if getattr(given, "ndim", None) == 0 else given


def said(given: Any) -> str:
    """A value as an error names it, in a line."""
    if getattr(given, "ndim", 0):
        return f"{type(given).__name__} {list(given.shape)}"
    text = repr(plain(given)).replace("\n", " ")
    return text if len(text) <= 80 else f"{text[:77]}..."


def settle(made: Any, name: str, check: Callable[..., Any], *how: Any) -> None:
    """Replaces a field of a frozen dataclass by its checked value; None stays."""
    if (given := getattr(made, name)) is not None:
        object.__setattr__(made, name, check(name, given, *how))


def whole(name: str, given: Any, least: int, wanted: str) -> int:
    """A whole number from `least` on."""
    value = plain(given)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={said(given)}: {wanted}")
    return value


def number(
    name: str, given: Any, wanted: str = "give a finite number", infinite: bool = False
) -> float:
    """A number; an infinite one where that is allowed, never NaN."""
    value = plain(given)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.nan
        if math.isfinite(value) or (infinite and not math.isnan(value)):
            return value
    raise ValueError(f"{name}={said(given)}: {wanted}")


def entries(name: str, given: Any, wanted: str) -> list[Any]:
    """What a sequence holds; a string, a mapping and a single value are none."""
    if hasattr(given, "ndim"):
        if given.ndim == 1:
            return given.tolist()
    elif isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping)):
        return list(given)
    raise ValueError(f"{name}={said(given)}: {wanted}")


def numbers(
    name: str, given: Any, wanted: str = "give one number, or one a sample, all finite"
) -> float | tuple[float, ...]:
    """A number, or one a sample."""
    if isinstance(plain(given), (int, float, str)):
        return number(name, given, wanted)
    listed = entries(name, given, wanted)
    made = tuple(number(f"{name}[{i}]", value) for i, value in enumerate(listed))
    if not made:
        raise ValueError(f"{name}={said(given)}: {wanted}")
    return made


def pair(
    name: str, given: Any, wanted: str, infinite: bool = False, least: float = -math.inf
) -> tuple[float, float]:
    """(low, high) with least <= low < high."""
    ends = entries(name, given, wanted)
    if len(ends) == 2:
        low, high = (number(name, end, wanted, infinite) for end in ends)
        if least <= low < high:
            return low, high
    raise ValueError(f"{name}={said(given)}: {wanted}")


def flag(name: str, given: Any) -> bool:
    """True or False."""
    value = plain(given)
    if not isinstance(value, bool):
        raise ValueError(f"{name}={said(given)}: give True or False")
    return value


def function(name: str, given: Any, wanted: str) -> Callable[..., Any]:
    """Something that can be called."""
    if not callable(given):
        raise ValueError(f"{name}={said(given)}: {wanted}")
    return given


def shape(given: Any) -> tuple[int, ...]:
    """(channels, *pixel) of one sample."""
    wanted = "one sample's shape is (channels, *pixel)"
    sizes = tuple(plain(size) for size in entries("shape", given, wanted))
    if not sizes or not all(type(n) is int and n > 0 for n in sizes):
        raise ValueError(f"shape={said(given)}: {wanted}")
    return sizes


def one_of(name: str, given: Any, choices: Sequence[Any]) -> Any:
    """One of a few values."""
    if not any(given is choice or given == choice for choice in choices):
        raise ValueError(f"{name}={said(given)}: choose {', '.join(map(str, choices))}")
    return given


def prompt(name: str, given: Any) -> str:
    """A text that says what to draw: not empty, of LONGEST characters at most, each one that UTF-8 has."""
    if not isinstance(given, str):
        raise ValueError(f"{name}={said(given)}: a prompt is a text, such as 'a red heart'")
    if not given.strip():
        raise ValueError(f"{name} is an empty text; write what it shall be, such as 'a red heart'")
    if len(given) > LONGEST:
        raise ValueError(
            f"{name} has {len(given)} characters; a prompt has {LONGEST} at most: say it in fewer"
        )
    try:
        given.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{name}={said(given)}: it holds half a character; send whole ones"
        ) from None
    return given


def names(who: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError where a keyword is unknown, with those that are spelled nearly so."""
    if unknown := sorted(set(given).difference(known)):
        close = nearest(unknown, known) or f"; it takes {', '.join(sorted(known)) or 'none'}"
        raise ValueError(f"{who} takes no {', '.join(unknown)}{close}")


def nearest(unknown: Iterable[str], known: Iterable[str]) -> str:
    """The end of a sentence: the known names that are spelled nearly as the unknown ones."""
    known = list(known)
    close = [name for word in unknown for name in difflib.get_close_matches(word, known, 1)]
    return f"; did you mean {', '.join(dict.fromkeys(close))}?" if close else ""
