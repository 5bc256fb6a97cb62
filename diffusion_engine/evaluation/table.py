"""Rows of figures in a CSV file, each written when it is known: a run that ended early goes on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import atomic
from .run import ASKED, Row


class Table:
    """The file at `path`, with these columns; it need not exist.

    path     of the file, .csv
    columns  of a row; those of `ASKED` tell rows apart
    Raises ValueError where the file has other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)
        self.rows: list[dict[str, str]] = []
        if not path.exists():
            return
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            found, self.rows = tuple(reader.fieldnames or ()), list(reader)
        if found != self.columns:
            raise ValueError(
                f"{path} has the columns {', '.join(found) or 'of an empty file'}, and not "
                f"{', '.join(self.columns)}; name another file"
            )

    def of(self, key: Row) -> Row | None:
        """The row that answers what a case asks, the last of several; None without any."""
        wanted = [said(key[name]) for name in ASKED]
        found = [row for row in self.rows if [row[name] for name in ASKED] == wanted]
        return {name: read(text) for name, text in found[-1].items()} if found else None

    def add(self, row: Row) -> None:
        """Writes the file with one more row; it appears whole or not at all."""
        self.rows.append({name: said(row.get(name)) for name in self.columns})
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic.write(self.path, text.getvalue().encode())


def said(value: Any) -> str:
    """A value as the file has it: numbers with up to six digits."""
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read(text: str) -> str | int | float | None:
    """The number that a value is, or else its text; None of an empty one."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text or None
