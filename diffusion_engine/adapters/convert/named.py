"""What a pickle names, told from its text: nothing of it is run."""

from __future__ import annotations

import io
import pickletools
from pathlib import Path

import torch

MOST = 64 << 20  # bytes of a bare pickle that are looked at


def named(path: Path, said: str) -> list[str]:
    """Functions and classes that a checkpoint wants called and that are no tensors', as "module.name".

    said  torch's objection, which names one where the file itself cannot be looked at
    """
    try:
        found = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # of a file that is no zip, or is damaged
        with path.open("rb") as file:
            met = _bare(file.read(MOST))
        found = {name for name in met if name in said} or {n for n in met if not _is_plain(n)}
    return sorted({n[:80] for n in found if n.isascii() and n.isprintable()})[:8]


def _is_plain(name: str) -> bool:
    return name.startswith("torch.") or name == "collections.OrderedDict"


def _bare(data: bytes) -> set[str]:
    """The names in pickles that follow each other, up to where there is none."""
    found: set[str] = set()
    stream = io.BytesIO(data)
    try:
        while stream.tell() < len(data):
            found |= _one(stream)
    except Exception:  # cut off, or no pickle at all
        pass
    return found


def _one(stream: io.BytesIO) -> set[str]:
    found: set[str] = set()
    texts: list[str] = [""]
    memo: dict[int, str] = {}
    for operation, value, _ in pickletools.genops(stream):
        name = operation.name
        if name in ("GLOBAL", "INST"):
            found.add(str(value).replace(" ", "."))
        elif name == "STACK_GLOBAL":
            found.add(".".join(texts[-2:]))
        elif name == "MEMOIZE" or name.endswith("PUT"):
            memo[len(memo) if value is None else int(value)] = texts[-1]
        elif name.endswith("GET"):
            texts.append(memo.get(int(value or 0), ""))
        elif isinstance(value, str):
            texts.append(value)
    return found
