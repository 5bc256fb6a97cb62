"""Calls and trajectories, interleaved among processes."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ... import results
from ...agreement import Disagreement
from ...timing import Others, Spread
from .cases import CPU, Case
from .contenders import CONTENDERS, dtype_said
from .worker import Worker

# Of the largest element, as in whole runs. Peers in bfloat16 that are farther off are timed, and their rows
# say so; what becomes of trajectories in it is a part of its own (benchmarks.runs.quality).
LIMITS = {
    torch.float32: {"call": 1e-4, "run": 1e-3},
    torch.bfloat16: {"call": 2e-2, "run": math.inf},
}
SCREEN = 2  # rounds after which settings that are far from a contender's best are left
FAR = 1.3
TURN = {
    "call": {"seconds": 0.08, "least": 2, "most": 60},
    "run": {"seconds": 0.1, "least": 1, "most": 5},
}

Setting = tuple[str, int, str]  # contender, threads, waiting


def measure(
    cases: Sequence[Case],
    names: Sequence[str],
    folder: Path,
    rounds: int,
    loads: Sequence[str],
    isa: str = "",
) -> Iterator[results.Row]:
    """Rows of every contender in every setting, quiet and busy.

    isa  the newest instructions that may be used; "" are the processor's own. With a name only float32 is
         computed in: those of bfloat16 are newer
    """
    shown = [n for n in names if not isa or CONTENDERS[n].dtype == torch.float32]
    workers = [Worker(n, *at, folder, isa) for n in shown for at in CONTENDERS[n].settings]
    try:
        for case in cases:
            for row in compare(case, workers, rounds, loads):
                yield row | {"isa": isa}
    finally:
        for worker in workers:
            worker.close()


def compare(
    case: Case, workers: Sequence[Worker], rounds: int, loads: Sequence[str]
) -> Iterator[results.Row]:
    ready = {w: said for w in workers if (said := _loaded(w, case)) is not None}
    for load in loads:
        with busy(load == "busy"):
            alive = list(ready)
            for part in ("call", "run") if case.run else ("call",):
                others = [0.0, 0.0, 0.0]
                took = interleaved(alive, part, rounds, others)
                alive = near(alive, {w: median(took[w]) for w in alive})
                for worker, seconds in took.items():
                    each = [s / case.batch for s in seconds] if part == "run" else seconds
                    spread, said = Spread.of(each), ready[worker]
                    yield results.row(
                        CPU, results.NATIVE_KEYS, part=part, network=case.network, batch=case.batch,
                        contender=worker.contender, dtype=dtype_said(worker.contender),
                        threads=worker.threads, waiting=worker.waiting,
                        load=load, ms=spread.median / 1e3, p20_ms=spread.p20 / 1e3, p80_ms=spread.p80 / 1e3,
                        error=said[part], repeats=len(each), version=said["version"],
                        others=Others.share_of(*others),
                    )  # fmt: skip


def _loaded(worker: Worker, case: Case) -> dict[str, Any] | None:
    said = worker.ask(do="load", case=asdict(case))
    if "objection" in said:
        print(f"{worker.contender} is left out of {case}: {said['objection']}", file=sys.stderr)
        return None
    dtype = CONTENDERS[worker.contender].dtype
    for part, limit in LIMITS[dtype].items():
        if not said.get(part, 0.0) <= limit:
            off = f"{worker.contender}: its {part} of {case} is off by {said[part]:.2g}"
            if dtype == torch.float32 or worker.contender.startswith("ours"):
                raise Disagreement(off)
            print(f"{off}, which its row says", file=sys.stderr)
    return said


def interleaved(
    workers: list[Worker], part: str, rounds: int, others: list[float]
) -> dict[Worker, list[float]]:
    """The seconds of everybody, in turns of some calls, forwards and backwards; `others` adds up what the
    cores did meanwhile."""
    took: dict[Worker, list[float]] = {worker: [] for worker in workers}
    for i in range(rounds):
        if i == SCREEN:
            workers = near(workers, {w: median(took[w]) for w in workers})
        for worker in workers if i % 2 else reversed(workers):
            said = worker.ask(do=part, of=TURN[part])
            took[worker] += said["seconds"]
            others[:] = (a + b for a, b in zip(others, said["used"], strict=True))
    return took


def near(
    workers: list[Any], medians: dict[Any, float], of: Callable = lambda w: w.contender
) -> list[Any]:
    """Those whose setting is not far from the contender's best."""
    best: dict[str, float] = {}
    for worker in workers:
        best[of(worker)] = min(medians[worker], best.get(of(worker), medians[worker]))
    return [w for w in workers if medians[w] <= FAR * best[of(w)]]


@contextmanager
def busy(on: bool) -> Iterator[None]:
    """Another process that takes a core all the time, where `on`."""
    if not on:
        yield
        return
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()
