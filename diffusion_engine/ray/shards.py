"""Shards on disk: a file appears whole or not at all, and says itself whether it is whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .table import Table

FORMAT = "diffusion-engine-shards/1"
METADATA_KEY = "diffusion_engine"  # of a recipe, as in other files of samples
MANIFEST, LOCK, PART = "manifest.json", ".lock", ".part"


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def content(rows: Table, samples: np.ndarray, recipe: dict[str, Any]) -> bytes:
    """The bytes of a shard: they follow from what is in it.

    samples  [n, *shape] float32
    """
    said = json.dumps(recipe, sort_keys=True)
    tensors = {"samples": np.ascontiguousarray(samples, np.float32)} | {
        name: column.view(np.int64) for name, column in rows.columns().items()
    }
    return save(tensors | {"sha256": _sum(tensors, said)}, {METADATA_KEY: said})


def write(path: Path, made: bytes) -> None:
    """Puts a file in its place when its bytes are on the disk. Raises OSError, and leaves nothing."""
    part = path.with_name(f".{path.stem}.{secrets.token_hex(8)}{PART}")
    try:
        with part.open("wb") as file:
            file.write(made)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def objection(path: Path, rows: Table) -> str | None:
    """Why a file is not the whole shard of these rows; None where it is."""
    try:
        made = path.read_bytes()
        tensors = load(made)
        said = _said(made)
        kept = tensors.pop("sha256")
    except FileNotFoundError:
        return "it is not there"
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        return f"it cannot be read ({error})"
    if not np.array_equal(kept, _sum(tensors, said)):
        return "its checksum is another"
    same = all(
        name in tensors and np.array_equal(tensors[name], column.view(np.int64))
        for name, column in rows.columns().items()
    )
    return None if same else "it has other rows"


def file_sum(path: Path) -> str:
    """SHA-256 of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recipe_of(path: Path) -> dict[str, Any]:
    """The recipe that a whole shard holds."""
    made: dict[str, Any] = json.loads(_said(path.read_bytes()))
    return made


def _said(made: bytes) -> str:
    length = int.from_bytes(made[:8], "little")
    return str(json.loads(made[8 : 8 + length])["__metadata__"][METADATA_KEY])


def _sum(tensors: dict[str, np.ndarray], recipe: str) -> np.ndarray:
    """[32] uint8, of everything else that a shard holds."""
    made = hashlib.sha256(recipe.encode())
    for name in sorted(tensors):
        made.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        made.update(np.ascontiguousarray(tensors[name]).data)
    return np.frombuffer(made.digest(), np.uint8)


@contextmanager
def opened(folder: Path, job: dict[str, Any]) -> Iterator[None]:
    """A folder for one run of a job: made where it is not there, and taken by nobody else meanwhile.

    Raises ValueError where it is another job's, or another run uses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run writes to {folder}; wait for it, or end it") from None
        _check(folder, job)
        for left in folder.glob(f".*{PART}"):  # of those that were killed while they wrote
            left.unlink()
        if not (folder / MANIFEST).exists():
            put_manifest(folder, job, None)
        yield


def _check(folder: Path, job: dict[str, Any]) -> None:
    path = folder / MANIFEST
    if not path.exists():
        if other := sorted(p.name for p in folder.iterdir() if p.name[0] != "."):
            raise ValueError(f"{folder} holds {other[0]} and no {MANIFEST}; give an empty folder")
        return
    try:
        kept = json.loads(path.read_text())
        known = kept["job"] if kept["format"] == FORMAT else None
    except (ValueError, KeyError, TypeError):
        known = None
    if not isinstance(known, dict):
        raise ValueError(f"{path} is no {MANIFEST} of this version; give another folder")
    differ = [key for key in {**known, **job} if known.get(key) != job.get(key)]
    if differ:
        key = differ[0]
        raise ValueError(
            f"{folder} holds samples of another recipe: its {key} is {_short(known.get(key))}, and here it "
            f"is {_short(job.get(key))}; give another folder, or go on with what made it"
        )


def _short(value: Any) -> str:
    said = json.dumps(value)
    return said if len(said) <= 80 else said[:77] + "..."


def put_manifest(folder: Path, job: dict[str, Any], shards: list[dict[str, Any]] | None) -> None:
    """Writes what a folder holds; shards is None until all of them are whole."""
    about = {"format": FORMAT, "job": job, "shards": shards}
    write(folder / MANIFEST, (json.dumps(about, indent=1) + "\n").encode())
