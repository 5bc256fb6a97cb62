"""The memory that a block of code adds at its peak."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

SELF = Path("/proc/self")


@contextmanager
def growth(device: torch.device) -> Iterator[list[float]]:
    """Yields a list that afterwards holds the MB by which the high-water mark rose above what was in
    use before; it stays empty where the system does not say."""
    found: list[float] = []
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield found
        found.append((torch.cuda.max_memory_allocated(device) - before) / 1e6)
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # freed memory that the C library keeps would be taken first, unseen
        trim(0)
    try:
        (SELF / "clear_refs").write_text(
            "5"
        )  # the high-water mark starts from what is resident now
    except OSError:
        yield found
        return
    before = resident("VmRSS")
    yield found
    found.append(max(0.0, resident("VmHWM") - before))


def resident(name: str = "VmRSS") -> float:
    """A line of the process's status in MB."""
    text = (SELF / "status").read_text()
    match = re.search(rf"{name}:\s*(\d+) kB", text)
    return int(match[1]) * 1.024e-3 if match else 0.0
