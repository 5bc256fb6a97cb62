"""A safetensors file read strictly: its header is checked before any number is, and its bytes are all told.

The format is 8 bytes of the header's length, little-endian, a JSON header and the tensors' bytes, end to end
(https://github.com/huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ... import checks
from .strict_json import parsed

HEADER = 16 << 20  # bytes; the format's own bound is 100 MB
TENSORS = 100_000
AXES = 8
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAME = re.compile(r"[!-~]{1,512}")  # printable ASCII


@dataclass(frozen=True)
class Entry:
    """start  of its bytes, from the end of the header on"""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def end(self) -> int:
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def opened(path: Path) -> BinaryIO:
    """A file open for reading. Raises ValueError where it is none, such as a pipe or a device."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ValueError(f"{path} is no file: give one")
    return os.fdopen(handle, "rb")


def load(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, on the CPU, each in memory of its own.

    Raises ValueError where the header is longer than 16 MiB or lies: a name twice or not in ASCII, an unknown
    dtype, bytes that overlap, are left out, or lie outside of the file or behind its tensors.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        made = {}
        for entry in _entries(path, file, size):
            made[entry.name] = _tensor(path, file, entry)
        return made


def _entries(path: Path, file: BinaryIO, size: int) -> list[Entry]:
    """What the header tells, in the order of the bytes."""
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length > size - 8:
        raise ValueError(
            f"{path} is no safetensors file, or is cut off: its {size} bytes would begin with a header of "
            f"{length}. A checkpoint of torch.save is one after `diffusion-engine convert`"
        )
    if length > HEADER:
        raise ValueError(f"{path} has a header of {length} bytes: at most {HEADER} are read")
    text = file.read(length)
    if text[:1] != b"{":  # as the format has it: nothing stands before
        raise ValueError(f"{path} is no safetensors file: its header does not begin with {{")
    header = parsed(text, f"the header of {path}", depth=3)
    _check_notes(path, header.pop("__metadata__", {}))
    if len(header) > TENSORS:
        raise ValueError(f"{path} tells of {len(header)} tensors: at most {TENSORS} are read")
    entries = sorted(
        (_entry(path, *item) for item in header.items()), key=lambda e: (e.start, e.end)
    )
    _check_bytes(path, entries, size - 8 - length)
    return entries


def _check_notes(path: Path, notes: Any) -> None:
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise ValueError(f"{path}: __metadata__ of its header may hold text by name, nothing else")


def _entry(path: Path, name: str, about: Any) -> Entry:
    if not NAME.fullmatch(name):
        raise ValueError(f"{path}: a tensor is called {name[:80]!a}: names are printable ASCII")
    if not isinstance(about, Mapping) or about.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{path}: {name} needs dtype, shape and data_offsets, and nothing else")
    dtype, shape, ends = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(
            f"{path}: {name} has the dtype {checks.said(dtype)}; known are {', '.join(DTYPES)}"
        )
    if not _wholes(shape) or len(shape) > AXES:
        raise ValueError(
            f"{path}: {name} has the shape {checks.said(shape)}; it is up to {AXES} whole numbers"
        )
    if not _wholes(ends) or len(ends) != 2:
        raise ValueError(
            f"{path}: {name} has the data_offsets {checks.said(ends)}; they are two whole numbers"
        )
    made = Entry(name, DTYPES[dtype], tuple(shape), ends[0])
    if made.end != ends[1]:
        raise ValueError(
            f"{path}: {name}, {dtype} {shape}, takes {made.end - made.start} bytes, and its data_offsets "
            f"{ends} say {ends[1] - ends[0]}"
        )
    return made


def _wholes(given: Any) -> bool:
    return isinstance(given, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in given)


def _check_bytes(path: Path, entries: list[Entry], size: int) -> None:
    """Raises ValueError unless each of `size` bytes belongs to one tensor."""
    at = 0
    for entry in entries:
        if entry.start != at:
            what = (
                "leaves bytes out before" if entry.start > at else "has another tensor's bytes in"
            )
            raise ValueError(f"{path} {what} {entry.name}: tensors lie end to end")
        at = entry.end
    if at != size:
        what = "is cut off" if at > size else "has something else behind its tensors"
        raise ValueError(f"{path} {what}: they take {at} bytes, and there are {size}")


def _tensor(path: Path, file: BinaryIO, entry: Entry) -> Tensor:
    try:
        made = torch.empty(entry.shape, dtype=entry.dtype)
    except (RuntimeError, MemoryError) as error:
        raise ValueError(
            f"{path}: {entry.name} takes {entry.end - entry.start} bytes, more than there are to be had"
        ) from error
    flat = made.reshape(-1).view(torch.uint8).numpy()
    at = 0
    while at < len(flat):
        count = file.readinto(flat[at:])  # type: ignore[attr-defined]
        if not count:
            raise ValueError(f"{path} became shorter while it was read: read it again")
        at += count
    return made


def save(file: BinaryIO, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as `load` reads them, one after the other, so that none has to be held twice."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {}
    at = 0
    for name, tensor in tensors.items():
        end = at + tensor.numel() * tensor.dtype.itemsize
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    file.write(len(text).to_bytes(8, "little") + text)
    for tensor in tensors.values():
        file.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
