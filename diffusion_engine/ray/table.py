"""What is generated in bulk: a table of (index, seed, condition), cut into shards by the index alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = {"index": np.int64, "seed": np.uint64, "condition": np.int64}
NEEDED = ("index", "seed")
HOLDS = (
    "a table holds whole numbers: index (0 or more), seed (0 to 2^64 - 1) and, or not, condition"
)


@dataclass(frozen=True, eq=False)
class Table:
    """Rows in the order of their index, each index once.

    index, seed, condition  [n]; condition is None where the network is given none
    """

    index: np.ndarray
    seed: np.ndarray
    condition: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.index)

    def columns(self) -> dict[str, np.ndarray]:
        """Those that are there, by name."""
        found = {"index": self.index, "seed": self.seed}
        return found if self.condition is None else found | {"condition": self.condition}

    def signed(self) -> dict[str, list[int]]:
        """Its columns as lists of int64, the seeds by their bits: what travels between nodes."""
        return {name: column.view(np.int64).tolist() for name, column in self.columns().items()}

    @classmethod
    def of_signed(cls, row: Mapping[str, Any]) -> Table:
        """What `signed` was made of, which is in the row."""
        given = {name: np.asarray(row[name], np.int64) for name in COLUMNS if name in row}
        return cls(**{name: column.view(COLUMNS[name]) for name, column in given.items()})

    def digest(self) -> str:
        """SHA-256 of what it says."""
        made = hashlib.sha256()
        for name, column in self.columns().items():
            made.update(name.encode() + column.tobytes())
        return made.hexdigest()

    def shards(self, size: int) -> Iterator[tuple[str, Table]]:
        """(name, rows) of each shard: shard k has the indices from k size to (k + 1) size, so that its name
        and its rows follow from the indices, whoever makes it."""
        shard = self.index // size
        for part in np.split(np.arange(len(self)), np.flatnonzero(np.diff(shard)) + 1):
            low = int(shard[part[0]]) * size
            rows = {name: column[part] for name, column in self.columns().items()}
            yield f"{low:012}-{low + size - 1:012}", Table(**rows)


def span(first: int, count: int, classes: Sequence[int] | None = None) -> Table:
    """Rows whose index is the seed, too.

    first, count  the index of the first, and how many
    classes       one a row
    """
    index = np.arange(first, first + count, dtype=np.int64)
    condition = None if classes is None else np.asarray(classes, np.int64)
    return Table(index, index.astype(np.uint64), condition)


def read(path: Path) -> Table:
    """The table of a file.

    path  .csv or .parquet, with the columns index, seed and, or not, condition

    Raises ValueError where it is none, and why.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    types = {name: pa.from_numpy_dtype(kind) for name, kind in COLUMNS.items()}
    try:
        if path.suffix == ".csv":
            found = csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=types))
        elif path.suffix == ".parquet":
            found = parquet.read_table(path)
        else:
            raise ValueError(f"choose a name ending in .csv or .parquet; {HOLDS}")
        _check(found.column_names)
        columns = {
            name: found[name].cast(types[name]).combine_chunks() for name in found.column_names
        }
        if empty := [name for name, column in columns.items() if column.null_count]:
            raise ValueError(f"{empty[0]} is empty in some rows; {HOLDS}")
        return _sorted({name: column.to_numpy() for name, column in columns.items()})
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _check(names: Sequence[str]) -> None:
    if lacking := [name for name in NEEDED if name not in names]:
        raise ValueError(f"it has no column {lacking[0]!r}; {HOLDS}")
    if other := [name for name in names if name not in COLUMNS or names.count(name) > 1]:
        raise ValueError(f"a column {other[0]!r} means nothing here; {HOLDS}")


def _sorted(columns: dict[str, np.ndarray]) -> Table:
    order = np.argsort(columns["index"], kind="stable")
    made = Table(**{name: column[order] for name, column in columns.items()})
    if not len(made):
        raise ValueError("it has no rows; give one a sample")
    if made.index[0] < 0:
        raise ValueError(f"index={made.index[0]}; {HOLDS}")
    if len(twice := made.index[1:][np.diff(made.index) == 0]):
        raise ValueError(f"index={twice[0]} stands in two rows; give each sample its own")
    return made
