"""`Pools`: threads that replay recorded networks, by how many there are."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch

_shared: dict[int, Any] = {}  # of the process: there are no more cores for a second pool
_lock = Lock()


class Pools:
    """The numbers of threads that a program may have.

    threads  the one number; None tries 1, the powers of two below torch.get_num_threads(), and that
    """

    def __init__(self, threads: int | None) -> None:
        self._threads = threads

    @property
    def candidates(self) -> list[int]:
        """In ascending order."""
        if self._threads is not None:
            return [self._threads]
        most = torch.get_num_threads()
        return [*(1 << i for i in range((most - 1).bit_length())), most]

    def of(self, threads: int) -> Any:
        """A pool. Of one thread it is the caller's own, who waits for nobody."""
        from ..backends.native import loaded

        if threads == 1:
            return loaded("_cpu").Pool(1)
        with _lock:
            if threads not in _shared:
                _shared[threads] = loaded("_cpu").Pool(threads)
            return _shared[threads]
