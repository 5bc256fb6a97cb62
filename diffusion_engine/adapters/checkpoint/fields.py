"""The fields of a config, read one by one as what they have to be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ... import checks

NEEDED: Any = object()  # the default of a field that has none
LONGEST = 64  # of a list
SHOWN = 8  # unknown names in an error
# Names by which other programs make objects of data, and how a place in code is written.
MAKERS = ("__class__", "__module__", "__reduce__", "__reduce_ex__", "_target_", "py/object")
CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*(\(.*)?")

V = TypeVar("V")


class Fields:
    """A config's fields: each is read once, as what it has to be, and `done` refuses the rest.

    where  what they are of, for errors

    Raises ValueError where a name or a text in it names code.
    """

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self.where = config, where
        self._met = {"format"}
        _check_no_code(config, where)

    def __contains__(self, name: str) -> bool:
        return name in self.config

    def whole(self, name: str, least: int, most: int, default: Any = NEEDED) -> Any:
        """A whole number from `least` to `most`; None too where that is the default."""
        return self._read(name, default, lambda said, v: _whole(said, v, least, most))

    def number(self, name: str, least: float, most: float, default: Any = NEEDED) -> Any:
        """A finite number from `least` to `most`, as a float."""
        return self._read(name, default, lambda said, v: _number(said, v, least, most))

    def flag(self, name: str, default: Any = NEEDED) -> Any:
        """True or False."""
        return self._read(name, default, checks.flag)

    def choice(self, name: str, values: Sequence[V], default: Any = NEEDED) -> Any:
        """One of a few values."""
        return self._read(name, default, lambda said, v: _choice(said, v, values))

    def wholes(
        self, name: str, least: int, most: int, default: Any = NEEDED, longest: int = LONGEST
    ) -> Any:
        """A list of 1 to `longest` whole numbers, as a tuple."""
        return self._read(
            name,
            default,
            lambda s, v: tuple(_whole(s, n, least, most) for n in _list(s, v, longest)),
        )

    def numbers(
        self, name: str, least: float, most: float, default: Any = NEEDED, longest: int = LONGEST
    ) -> Any:
        """A list of 1 to `longest` finite numbers, as a tuple of floats."""
        return self._read(
            name,
            default,
            lambda s, v: tuple(_number(s, n, least, most) for n in _list(s, v, longest)),
        )

    def inner(self, name: str, default: Any = NEEDED) -> Any:
        """The fields of an object within; call `done` of them too."""
        return self._read(name, default, lambda said, v: Fields(_object(said, v), said))

    def ignore(self, *names: str) -> None:
        """Fields that say nothing of the network, such as how it was trained."""
        self._met.update(names)

    def done(self) -> None:
        """Raises ValueError where fields are left that were not read."""
        if unknown := sorted(set(self.config) - self._met):
            known, shown = self._met - {"format"}, unknown[:SHOWN]
            close = checks.nearest(shown, known) or f"; known are {', '.join(sorted(known))}"
            more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
            raise ValueError(
                f"{self.where} has the unknown {', '.join(map(checks.said, shown))}{more}{close}"
            )

    def _read(self, name: str, default: Any, check: Any) -> Any:
        self._met.add(name)
        if name not in self.config:
            if default is NEEDED:
                close = checks.nearest([name], set(self.config) - self._met)
                raise ValueError(f"{self.where} lacks {name!r}{close}")
            return default
        value = self.config[name]
        if value is None and default is None:
            return None
        return check(f"{self.where}: {name}", value)


def _whole(said: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{said}={checks.said(value)}: give a whole number from {least} to {most}")
    return value


def _number(said: str, value: Any, least: float, most: float) -> float:
    wanted = f"give a number from {least:g} to {most:g}"
    made = checks.number(said, value, wanted)
    if not least <= made <= most:
        raise ValueError(f"{said}={checks.said(value)}: {wanted}")
    return made


def _choice(said: str, value: Any, values: Sequence[Any]) -> Any:
    # As 1 == True == 1.0, its type has to be that of the choice too.
    if not any(type(value) is type(each) and value == each for each in values):
        raise ValueError(f"{said}={checks.said(value)}: choose {', '.join(map(str, values))}")
    return value


def _list(said: str, value: Any, longest: int) -> list[Any]:
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= longest:
        raise ValueError(f"{said}={checks.said(value)}: give a list of 1 to {longest}")
    return list(value)


def _object(said: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{said}={checks.said(value)}: it is an object of fields")
    return value


def _check_no_code(value: Any, where: str) -> None:
    """Raises ValueError where a config names code: it may say which network it is, not bring one."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_no_code(str(name), where)
            _check_no_code(inner, where)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_no_code(inner, where)
    elif isinstance(value, str) and (value in MAKERS or CODE.fullmatch(value)):
        raise ValueError(
            f"{where} names code, {checks.said(value)}: a config holds numbers and names of choices, and "
            "nothing of it is run. For a network of your own write --model package.module:name"
        )
