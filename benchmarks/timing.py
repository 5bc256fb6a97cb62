"""Times are taken interleaved, by the median, over rotated buffers."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

Call = Callable[[], object]
Clock = Callable[[Call], float]

WARM_UP = 3
REFRESH = 16  # rounds after which the buffers get their first contents back


def nothing() -> None:
    pass


@dataclass(frozen=True)
class Task:
    """Something to time: calls[s] works on buffer set s; `before` and `after` are not timed."""

    name: str
    calls: list[Call]
    before: Callable[[], None] = nothing
    after: Callable[[], None] = nothing


@dataclass(frozen=True)
class Spread:
    """The median, the 20th and 80th percentile, and the least, in microseconds."""

    median: float
    p20: float
    p80: float
    least: float

    @classmethod
    def of(cls, seconds: list[float]) -> Spread:
        p20, median, p80 = (float(v) * 1e6 for v in np.percentile(seconds, (20, 50, 80)))
        return cls(median, p20, p80, 1e6 * min(seconds))

    def columns(self) -> dict[str, float]:
        return {"median_us": self.median, "p20_us": self.p20, "p80_us": self.p80}


def interleave(
    tasks: list[Task], rounds: int, clock: Clock, refresh: Callable[[], None] = nothing,
    warm_up: int = WARM_UP,
) -> dict[str, Spread]:  # fmt: skip
    """Times every task once a round, forwards and backwards in turn.

    Each call takes the next buffer set, so that a set comes back only after all the others.
    refresh  gives all sets their first contents back; not timed
    warm_up  rounds before those that count
    """
    seconds: dict[str, list[float]] = {task.name: [] for task in tasks}
    turn = itertools.count()
    for i in range(-warm_up, rounds):
        if (i + warm_up) % REFRESH == 0:
            refresh()
        for task in tasks if i % 2 else reversed(tasks):
            call = task.calls[next(turn) % len(task.calls)]
            task.before()
            taken = clock(call)
            task.after()
            if i >= 0:
                seconds[task.name].append(taken)
    return {name: Spread.of(values) for name, values in seconds.items()}


def cpu_clock(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def cuda_clock(call: Call) -> float:
    """The seconds between two events; a filler kernel first, so that the launch itself is not waited for."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(200_000)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e-3


def settle(device: torch.device) -> None:
    """Waits until the device is at rest."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wall_clock(device: torch.device) -> Clock:
    """A clock that runs from a device at rest to a device at rest, so that waiting of either side counts."""

    def taken(call: Call) -> float:
        settle(device)
        start = time.perf_counter()
        call()
        settle(device)
        return time.perf_counter() - start

    return taken


def clock(device: torch.device) -> Clock:
    return cuda_clock if device.type == "cuda" else cpu_clock


class Others:
    """The share of the cores that other processes took since this was made."""

    def __init__(self) -> None:
        self.before = self._now()

    def seconds(self) -> tuple[float, float, float]:
        """The seconds since then of all cores busy and idle, and of this process."""
        busy, idle, own = (b - a for a, b in zip(self.before, self._now(), strict=True))
        return busy, idle, own

    def share(self) -> float | None:
        """The share, 0 to 1, or None where it is unknown.

        It is unknown after less than half a second: the kernel counts in hundredths of one.
        """
        return self.share_of(*self.seconds())

    @staticmethod
    def share_of(busy: float, idle: float, own: float) -> float | None:
        if busy + idle < 0.5:
            return None
        return max(0.0, round((busy - own) / (busy + idle), 3))

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """The seconds of all cores busy and idle, and of this process."""
        path = Path("/proc/stat")
        if not path.exists():
            return 0.0, 0.0, 0.0
        ticks = [int(n) / os.sysconf("SC_CLK_TCK") for n in path.read_text().split()[1:9]]
        idle = ticks[3] + ticks[4]
        return sum(ticks) - idle, idle, time.process_time()


def cache_bytes(device: torch.device) -> int:
    """The size of the last cache before memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = [
        _size(p.read_text()) for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("*/size")
    ]
    return max(sizes, default=32 << 20)


def _size(text: str) -> int:
    units = {"K": 1 << 10, "M": 1 << 20}
    text = text.strip()
    return int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text)


def sets_needed(set_bytes: int, cache: int) -> int:
    """The number of sets: 1, which stays hot, where one fits well into the cache; else twice the cache."""
    return 1 if set_bytes < cache // 4 else 1 + -(-2 * cache // set_bytes)


def cache_name(sets: int) -> str:
    """The name in a row of so many buffer sets."""
    return f"cold/{sets}" if sets > 1 else "hot"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    path = Path("/proc/cpuinfo")
    return cpu_name(path.read_text().splitlines() if path.exists() else [])


def cpu_name(lines: Iterable[str]) -> str:
    """The model, with family and number, because a virtual machine may hide the rest."""
    found: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    model = found.get("model name", "CPU").split(" @")[0]
    return f"{model} {found.get('cpu family', '?')}.{found.get('model', '?')}"
