"""The committed rows: the latest of each comparison, one by what it is of, and tables of them."""

from __future__ import annotations

import csv
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from .. import results

Row = dict[str, str]


class Lacking(LookupError):
    """No committed row says what a page wants to say."""


def read(path: Path) -> list[Row]:
    if not path.exists():
        raise Lacking(
            f"there is no {path}: measure it (benchmarks/README.md), or take the block out"
        )
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def committed(name: str) -> list[Row]:
    """The rows of a file of results/."""
    return read(results.FOLDER / name)


def some(rows: Iterable[Row], **wanted: str) -> list[Row]:
    """The rows with these values, one or more."""
    found = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    if not found:
        values = ", ".join(f"{key}={value}" for key, value in wanted.items())
        raise Lacking(f"no committed row has {values}: measure it, or take the block out")
    return found


def one(rows: Iterable[Row], **wanted: str) -> Row:
    """The last row with these values."""
    return some(rows, **wanted)[-1]


def latest_runs(rows: list[Row]) -> list[Row]:
    """The rows of the last run of each comparison: only those were measured side by side."""
    found = []
    for _, same in grouped(rows, "workload", "dtype", "shape", "steps"):
        last = max(row["date"] for row in same)
        found += [row for row in same if row["date"] == last]
    return found


def latest_ops(rows: list[Row]) -> list[Row]:
    keys = ("op", "case", "provider", "dtype", "shape", "layout")
    return list({tuple(row[key] for key in keys): row for row in rows}.values())


def grouped(rows: Iterable[Row], *keys: str) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    """The (values of the keys, rows), in the order in which the values come first."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    yield from found.items()


def table(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """A table of columns -> heads; those without a value are left out."""
    used = {key: head for key, head in columns.items() if any(row[key] for row in rows)}
    return lines(list(used.values()), [[row[key] for key in used] for row in rows], len(used))


def lines(head: Sequence[str], body: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table, its first columns to the left and the others, numbers, to the right."""
    under = "|" + "---|" * left + "---:|" * (len(head) - left)
    cells = [f"| {' | '.join(line)} |" for line in (head, *body)]
    return "\n".join([cells[0], under, *cells[1:]])


def origin(*found: Mapping[str, str], command: str) -> str:
    """Where, when and by what the rows were measured."""
    device, threads, torch, commit = (
        list(dict.fromkeys(row[key] for row in found))
        for key in ("device", "threads", "torch", "commit")
    )
    days = sorted({row["date"].partition("T")[0] for row in found})
    return ", ".join((
        *device,
        " and ".join(threads) + (" thread" if threads == ["1"] else " threads"),
        f"torch {' and '.join(torch)}",
        f"commit{'s' * (len(commit) > 1)} {', '.join(commit)}",
        " to ".join(dict.fromkeys((days[0], days[-1]))) + f"; `{command}`.",
    ))  # fmt: skip


def prose(*sentences: str) -> str:
    """Sentences as a paragraph of the pages' width; code stays on one line."""
    text = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), " ".join(sentences))
    filled = textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False)
    return filled.replace("\0", " ")


def number(value: float) -> str:
    """Three digits, and all of those before the point."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def times(ratio: float) -> str:
    """How many times faster ours is; below 1 it is slower."""
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x"


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
