"""Learned tables in files: JSON alone, of a bounded size, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import atomic, checks
from .table import Table

BYTES = 1 << 20
SHIPPED = Path(__file__).parent / "tables"


def read(path: str | os.PathLike[str]) -> Table:
    """The table of a JSON file. Raises ValueError in a sentence where it is none."""
    path = Path(path)
    with path.open("rb") as file:
        text = file.read(BYTES + 1)
    if len(text) > BYTES:
        raise ValueError(
            f"{path} has more than {BYTES} bytes; a learned table is a small JSON file"
        )
    try:
        made = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON of a learned table ({error})") from None
    if not isinstance(made, dict) or "format" not in made:
        raise ValueError(f"{path} says no format; a learned table begins with its format")
    try:
        return Table.model_validate(made)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def write(table: Table, path: str | os.PathLike[str]) -> None:
    """Writes a table; the file is there whole or not at all. Numbers come back as they are."""
    atomic.write(path, said(table).encode())


def said(table: Table) -> str:
    """The JSON text of a table, a line a key and a line a row of b."""
    body = table.model_dump(mode="json", exclude_none=False)
    optional = {name: field.default for name, field in Table.model_fields.items()}
    kept = {k: v for k, v in body.items() if k in ("format", "of", "base") or v != optional[k]}
    lines = [f' "{key}": {_value(value)}' for key, value in kept.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _value(value: Any) -> str:
    nested = isinstance(value, list) and any(isinstance(part, list) for part in value)
    if not nested:
        return json.dumps(value, allow_nan=False)
    return "[\n  " + ",\n  ".join(json.dumps(part, allow_nan=False) for part in value) + "\n ]"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return made


def names() -> list[str]:
    """The names of the tables that ship, each of a network of the zoo and a number of calls."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def table(given: Any) -> Table:
    """The table of a Table, of what JSON holds of one, of the name of one that ships, or of a file's path, no
    text: what comes from elsewhere opens no file. Raises ValueError in a sentence."""
    if isinstance(given, Table):
        return given
    if isinstance(given, Mapping):
        return Table.model_validate(dict(given))
    if isinstance(given, os.PathLike):
        return read(given)
    if isinstance(given, str) and given in names():
        return read(SHIPPED / f"{given}.json")
    raise ValueError(
        f"table={checks.said(given)}: give a table as learned.read(path) gives it, a pathlib.Path, what its "
        f"JSON holds, or the name of one that ships: {', '.join(names())}"
    )
