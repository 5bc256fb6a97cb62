"""Choices on disk: of one network on one machine, under the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

VARIABLE = "DIFFUSION_ENGINE_CACHE"
FILES, LARGEST = 256, 1 << 16  # networks that are kept of a kind, and bytes of the file of one

# What this process goes by, {file: {entries: choice}}, where another process has to choose the same.
_shared: dict[str, dict[str, Any]] | None = None


def share(known: Mapping[str, Mapping[str, Any]]) -> None:
    """From now on this process notes what it goes by, and goes by what another one noted before it looks into
    the folder.

    known  what `shared` gave there
    """
    global _shared
    _shared = {name: dict(choices) for name, choices in known.items()}


def shared() -> dict[str, dict[str, Any]]:
    """What this process goes by since `share`, as JSON-able values."""
    return {name: dict(choices) for name, choices in (_shared or {}).items()}


def folder() -> Path:
    """Where choices are kept: DIFFUSION_ENGINE_CACHE, else below XDG_CACHE_HOME or ~/.cache."""
    if given := os.environ.get(VARIABLE):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "diffusion_engine"


def files(kind: str) -> Iterator[Path]:
    """The files of what is kept of a kind, one a network; none where there is no folder."""
    with suppress(OSError, RuntimeError):  # there may be no home
        yield from (path for path in (folder() / kind).iterdir() if path.suffix == ".json")


class Kept:
    """Choices by the entries of a call, of one network on this machine. Later processes read them.

    kind   of what is chosen: the name of a folder
    about  what it holds for beside the machine, as JSON holds it: the network
    is_one whether a value is a choice

    A file that cannot be read, or not be written, is as none.
    """

    def __init__(self, kind: str, about: Iterable[Any], is_one: Callable[[Any], bool]) -> None:
        text = json.dumps([_machine(), list(about)])
        self._place = kind, hashlib.sha256(text.encode()).hexdigest()[:32] + ".json"
        self._is_one = is_one

    @property
    def path(self) -> Path:
        return folder().joinpath(*self._place)

    def get(self, entries: int) -> Any:
        """What was chosen for calls of so many entries, or None."""
        known = self._noted().get(str(entries))
        if self._is_one(known):
            return known
        found = self._read().get(str(entries))
        if found is not None:
            self._noted()[str(entries)] = found
        return found

    def _noted(self) -> dict[str, Any]:
        return {} if _shared is None else _shared.setdefault("/".join(self._place), {})

    def put(self, entries: int, choice: Any) -> None:
        """Keeps it: the file is replaced as a whole."""
        self._noted()[str(entries)] = choice
        with suppress(OSError, RuntimeError):
            path = self.path
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(self._read() | {str(entries): choice}, file)
                os.replace(name, path)
            except OSError:
                with suppress(OSError):
                    os.unlink(name)
                raise
            _tidy(path.parent)

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                found = json.loads(file.read(LARGEST))
        except (OSError, ValueError, RuntimeError):  # which too deep a file is, and no home
            return {}
        if not isinstance(found, dict):
            return {}
        return {entries: choice for entries, choice in found.items() if self._is_one(choice)}


def _machine() -> list[Any]:
    """What a choice holds for: the processor, its threads and how they wait, and the programs."""
    from ..backends.machine import processor
    from ..backends.native import module
    from ..version import __version__

    cpu = module("_cpu")
    isa = "" if isinstance(cpu, str) else cpu.isa()
    waits = os.environ.get("OMP_WAIT_POLICY", "")
    return [processor(), isa, torch.get_num_threads(), waits, torch.__version__, __version__]


def _tidy(where: Path) -> None:
    """Those that were not written to for longest go, where there are too many."""
    found = [(path.stat().st_mtime, path) for path in where.iterdir() if path.is_file()]
    for _, path in sorted(found)[: max(0, len(found) - FILES)]:
        with suppress(OSError):
            path.unlink()
