"""`profile`: totals from a clock in runs without a profiler, the classes' shares from one with it."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, record_function

from .. import checks, trace
from ..backends.machine import processor
from ..networks.compiled import Compiled
from .classes import BETWEEN, CLASSES, PARTS
from .events import PREFIX, device_ops, host_ops, moves
from .report import GAPS, NETWORK, Op, Part, Profile
from .versions import versions

if TYPE_CHECKING:
    from ..sampler.result import Result
    from ..sampler.sampler import Sampler

WARM_UP = 2  # runs: the second replays what the first one captured

Run = Callable[[], "Result"]


class Clock:
    """Counts and seconds of the ranges, by name. A range takes 1.7 us longer for it (AMD EPYC)."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def __call__(self, name: str, payload: int | None) -> AbstractContextManager[Any]:
        return _Reading(self, name)


class _Reading:
    __slots__ = ("clock", "name", "start")

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock, self.name = clock, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.clock.seconds[self.name] += time.perf_counter() - self.start
        self.clock.calls[self.name] += 1


def profile(
    sampler: Sampler,
    n: int | None = None,
    condition: Any = None,
    runs: int = 5,
    noise: str | None = None,
) -> Profile:
    """Where the time of `sampler.sample(n, condition=condition, noise=noise)` goes.

    runs  timed by the clock, 1 or more; two before them and two with torch.profiler are not

    The total is the median of the clock. On a CPU so are network, step and what lies between them;
    the classes share the network's time as the profiler, which makes short operators longer, saw
    it. On a GPU the parts are its kernels' times, and host gaps what the GPU did not work.

    Raises ValueError where runs or the request cannot be, OSError where the profiler sees no kernel.
    """
    runs = checks.whole("runs", runs, 1, "time at least 1 run")
    device = sampler.device

    def run() -> Result:
        given = {} if noise is None else {"noise": noise}
        result = sampler.sample(n, condition=condition, progress=False, **given)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return result

    walls, clock, result = _clocked(run, runs)
    rows = _rows(sampler, clock) // runs
    events = _profiled(run, device)
    total = float(np.median(walls))
    kernels = host_us = None
    if device.type == "cuda":
        parts, ops = _device_parts(events, total)
        kernels = sum(op.calls for op in ops if not moves(op)) / rows
        host_us = (clock.seconds["row"] or clock.seconds["replay"]) / (rows * runs) * 1e6
    else:
        parts, ops = _host_parts(events, clock, total, sum(walls), runs)
    low, high = (float(q) for q in np.percentile(walls, (20, 80)))
    return Profile(
        total, (low, high), runs, len(result.seeds), sampler.batch_size, rows, tuple(parts), tuple(ops),
        machine(device), versions(), how(sampler), result.recipe, kernels, host_us,
    )  # fmt: skip


def _rows(sampler: Sampler, clock: Clock) -> int:
    """The rows of all runs together."""
    rows = clock.calls["row"]
    if not rows and clock.calls["replay"]:  # of whole runs, each a graph
        rows = clock.calls["replay"] * len(sampler.plan().rows)
    if not rows:
        raise RuntimeError("the executor of this sampler marks no rows (diffusion_engine.trace)")
    return rows


def _clocked(run: Run, runs: int) -> tuple[list[float], Clock, Result]:
    """Seconds of every run, and the ranges of all of them together."""
    clock = Clock()
    with trace.listening("clock", clock):
        for _ in range(WARM_UP):
            result = run()
        clock.calls.clear()
        clock.seconds.clear()
        walls = []
        for _ in range(runs):
            start = time.perf_counter()
            run()
            walls.append(time.perf_counter() - start)
    return walls, clock, result


def _profiled(run: Run, device: torch.device) -> list[Any]:
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with trace.listening("profiler", lambda name, payload: record_function(PREFIX + name)):
        run()  # not timed: executors that were bound to the clock are made anew
        with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
            run()
    return list(profiler.events())


def _host_parts(
    events: Sequence[Any], clock: Clock, total: float, elapsed: float, runs: int
) -> tuple[list[Part], list[Op]]:
    """Parts of a CPU's run: ranges by the clock, the network's classes by the profiler."""
    scale = total / elapsed
    network = clock.seconds[NETWORK] * scale
    ops, calls = host_ops(events)
    seen = sum(op.seconds for op in ops) or 1.0
    ops = [Op(op.name, op.kind, op.calls, op.seconds / seen * network) for op in ops]
    parts = [Part(NETWORK, None, clock.calls[NETWORK] / runs, network)]
    parts += _classes(ops, calls)
    for kind in dict.fromkeys(PARTS.values()):
        names = [name for name in PARTS if PARTS[name] == kind]
        begun = sum(clock.calls[name] for name in names)
        if begun:
            seconds = sum(clock.seconds[name] for name in names)
            parts.append(Part(kind, None, begun / runs, seconds * scale))
    top = sum(part.seconds for part in parts if part.within is None)
    parts.append(Part(GAPS, None, None, total - top))
    return parts, [op for op in ops if op.kind != BETWEEN]


def _device_parts(events: Sequence[Any], total: float) -> tuple[list[Part], list[Op]]:
    """Parts of a GPU's run: its kernels' own times. All that are no other part's are the network's."""
    ops, busy = device_ops(events)
    seen = sum(op.seconds for op in ops)
    if not seen:
        raise OSError(
            "the profiler saw no kernel of the GPU: end other profilers of this process, and let the "
            "driver give its counters to every user"
        )
    # Kernels that overlap share the time in which any ran, and the clock's run may have been shorter.
    scale = min(busy, total) / seen
    ops = [Op(op.name, op.kind, op.calls, op.seconds * scale) for op in ops]
    calls: Counter[str] = Counter()
    for op in ops:
        calls[op.kind] += op.calls
    kinds = list(dict.fromkeys(PARTS.values()))
    rest = [op for op in ops if op.kind not in kinds]
    parts = [Part(NETWORK, None, sum(op.calls for op in rest), sum(op.seconds for op in rest))]
    parts += _classes(rest, calls)
    for kind in kinds:
        if calls[kind]:
            own = sum(op.seconds for op in ops if op.kind == kind)
            parts.append(Part(kind, None, calls[kind], own))
    parts.append(Part(GAPS, None, None, total - sum(op.seconds for op in ops)))
    return parts, ops


def _classes(ops: Sequence[Op], calls: Counter[str]) -> list[Part]:
    """The network's parts, without the classes that nothing belongs to."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for op in ops:
        seconds[op.kind] += op.seconds
    return [
        Part(kind, NETWORK, None if kind == BETWEEN else calls[kind], seconds[kind])
        for kind in CLASSES
        if kind in seconds
    ]


def how(sampler: Sampler) -> dict[str, Any]:
    """What runs the rows, which a recipe does not say."""
    return {
        "executor": type(sampler.executor).__name__.lower(),
        "accelerated": sampler.accelerated is not None,
        "compiled": isinstance(sampler.network.module, Compiled),
    }


def machine(device: torch.device) -> dict[str, Any]:
    """What the times are of."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    threads = torch.get_num_threads()
    about = {"name": name, "device": str(device), "threads": threads, "cores": os.cpu_count()}
    return about | {"system": platform.platform()}
