"""The number of threads on which torch runs what one thread calls."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch


@contextmanager
def on(threads: int) -> Iterator[None]:
    """torch runs on so many threads what the calling thread does meanwhile; other threads keep theirs."""
    before = torch.get_num_threads()  # which settles that of a thread new to torch
    if threads == before:
        yield
        return
    restore = _set(threads, before)
    try:
        yield
    finally:
        restore()


def _set(threads: int, before: int) -> Callable[[], object]:
    """Sets the number of the calling thread; what sets it back.

    torch.set_num_threads sets OpenMP's and MKL's number of the calling thread, which it has to, and the one
    that threads take up that are new to torch: one begun meanwhile would keep it for good.
    """
    set_openmp, set_mkl = _setters()
    if set_openmp is not None:
        set_openmp(threads)
        if torch.get_num_threads() == threads:
            mkl = set_mkl(threads)  # 0 where MKL follows OpenMP

            def restore() -> None:
                set_openmp(before)
                set_mkl(mkl)

            return restore
    torch.set_num_threads(threads)
    return lambda: torch.set_num_threads(before)


Setter = Callable[[int], int]


@cache
def _setters() -> tuple[Setter | None, Setter]:
    """OpenMP's and MKL's own, of those libraries that torch is linked to; None where they are not found."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        set_openmp: Setter = library.omp_set_num_threads
    except (OSError, AttributeError):
        return None, int
    return set_openmp, getattr(library, "MKL_Set_Num_Threads_Local", int)
