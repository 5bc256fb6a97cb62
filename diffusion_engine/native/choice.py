"""Which number of threads is the fastest: measured once, and kept under the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch

VARIABLE = "DIFFUSION_ENGINE_CACHE"
EQUAL = 1.03  # times within this are the same: fewer threads leave more for others
ROUNDS, SECONDS = (3, 15), 0.05  # of runs in turns: at least, at most, and how long
FILES, LARGEST = 256, 1 << 16  # networks that are kept, and bytes of the file of one


def folder() -> Path:
    """Where choices are kept: DIFFUSION_ENGINE_CACHE, else below XDG_CACHE_HOME or ~/.cache."""
    if given := os.environ.get(VARIABLE):
        return Path(given) / "threads"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "diffusion_engine" / "threads"


def measured(runs: Mapping[int, Callable[[], Any]]) -> dict[int, float]:
    """Seconds of each, the median; they run in turns, so that what else the machine does meets all alike.

    One alone is not run.
    """
    if len(runs) == 1:
        return {}
    least, most = ROUNDS
    times: dict[int, list[float]] = {threads: [] for threads in runs}
    for run in runs.values():
        run()
    began = time.perf_counter()
    for done in range(most):
        if done >= least and time.perf_counter() - began > SECONDS:
            break
        for threads, run in runs.items():
            start = time.perf_counter()
            run()
            times[threads].append(time.perf_counter() - start)
    return {threads: median(found) for threads, found in times.items()}


def fewest(times: Mapping[int, float]) -> int:
    """The least number of threads that is as fast as the fastest, nearly; 1 where nothing was measured."""
    best = min(times.values(), default=0.0)
    return min((n for n, seconds in times.items() if seconds <= EQUAL * best), default=1)


class Choices:
    """Numbers of threads by the entries of a call, of one network on this machine. Later processes read them.

    text  of the network's graph
    sums  of its weights
    A file that cannot be read, or not be written, is as none.
    """

    def __init__(self, text: str, sums: Iterable[int]) -> None:
        about = [_machine(), text, list(sums)]
        self._name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32] + ".json"

    @property
    def path(self) -> Path:
        return folder() / self._name

    def get(self, batch: int) -> int | None:
        """What was measured for calls of so many entries."""
        return self._read().get(str(batch))

    def put(self, batch: int, threads: int) -> None:
        """Keeps it: the file is replaced as a whole."""
        with suppress(OSError, RuntimeError):  # there may be no home
            path = self.path
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(self._read() | {str(batch): threads}, file)
                os.replace(name, path)
            except OSError:
                with suppress(OSError):
                    os.unlink(name)
                raise
            _tidy(path.parent)

    def _read(self) -> dict[str, int]:
        try:
            with open(self.path, "rb") as file:
                found = json.loads(file.read(LARGEST))
        except (OSError, ValueError, RuntimeError):  # which too deep a file is, and no home
            return {}
        if not isinstance(found, dict):
            return {}
        return {k: v for k, v in found.items() if type(v) is int and v > 0}


def _machine() -> list[Any]:
    """What a choice holds for."""
    from ..backends.machine import processor
    from ..backends.native import loaded
    from ..version import __version__

    return [processor(), loaded("_cpu").isa(), torch.get_num_threads(), __version__]


def _tidy(where: Path) -> None:
    """Those that were not written to for longest go, where there are too many."""
    found = [(path.stat().st_mtime, path) for path in where.iterdir() if path.is_file()]
    for _, path in sorted(found)[: max(0, len(found) - FILES)]:
        with suppress(OSError):
            path.unlink()
