"""`Pools`: threads that replay recorded networks, by how many there are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from threading import Lock
from typing import Any

import torch

from ..choices.turns import numbers

_shared: dict[int, Any] = {}  # of the process: there are no more cores for a second pool
_lock: Any = Lock()
if hasattr(os, "register_at_fork"):  # a thread that had it is not in the child
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)


class Pools:
    """The numbers of threads that a program may have.

    threads  the one number, or that of each number of entries; where there is none 1, the powers of two below
             torch.get_num_threads(), and that are tried
    """

    def __init__(self, threads: int | Mapping[int, int] | None) -> None:
        self._threads = threads

    def candidates(self, entries: int) -> list[int]:
        """For a call of so many entries, in ascending order."""
        given = self._threads
        if isinstance(given, Mapping):
            given = given.get(entries)
        return numbers(torch.get_num_threads()) if given is None else [given]

    def of(self, threads: int) -> Any:
        """A pool. Of one thread it is the caller's own, who waits for nobody."""
        from ..backends.native import loaded

        if threads == 1:
            return loaded("_cpu").Pool(1)
        with _lock:
            if threads not in _shared:
                _shared[threads] = loaded("_cpu").Pool(threads)
            return _shared[threads]
