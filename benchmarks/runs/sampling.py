"""Times whole runs of DDIM against the peers: python -m benchmarks.run --workload W1."""

from __future__ import annotations

import gc
import importlib
import sys
import textwrap
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .. import comparisons, layers, results, timing
from ..agreement import Disagreement, difference
from ..ddim_run import DDIMRun
from ..peers import PEERS, Contender, choose, missing
from ..timing import Spread, Task
from . import lower_bound, memory
from .engine import ENGINE
from .workloads import WORKLOADS

REPEATS = {"cpu": 5, "cuda": 20}
IDLE = 30  # repeats of a loop without its network
QUIET = 0.1  # share of the cores that others may take
LIMIT = 1e-3  # of the largest element, in float32

Make = Callable[[DDIMRun], Contender]


@dataclass(frozen=True)
class Ready:
    """A contender whose samples are the formula's, with what its first run took."""

    contender: Contender
    max_error: float
    first_s: float
    peak_mb: float | None


def main(given: Namespace) -> None:
    device = torch.device(given.device)
    if device.type == "cuda":  # what every user of a GPU sets; float32 means float32 for all
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    dtype = getattr(torch, given.dtype or ("float32" if device.type == "cpu" else "bfloat16"))
    workload = WORKLOADS[given.workload]
    try:
        makers = contenders(given.peers, device.type)
    except ValueError as error:
        sys.exit(f"--peers: {error}")
    batches = given.batch or workload.batches.get(device.type)
    if not batches:
        sys.exit(f"{given.workload} is large for a {device.type}: say how many samples, --batch 1")
    module, rows = workload.network(), []

    def comparison(batch: int) -> list[results.Row]:
        ddim_run = workload.ddim_run(module, batch, given.steps, device, dtype)
        return compare(given.workload, ddim_run, makers, given.repeats or REPEATS[device.type])

    def keep(found: list[results.Row]) -> None:
        for row in found:
            results.show(row, header=not rows, shown=results.RUN_SHOWN)
            rows.append(row)
        print("\n".join(ratios(found)), flush=True)
        if found and not given.no_save:
            print(f"{len(found)} rows appended to {results.save(found, results.RUNS)}")

    comparisons.finish(
        comparisons.compare_all([partial(comparison, batch) for batch in batches], keep)
    )


def contenders(peers: str, device: str) -> dict[str, Make]:
    """The engine in its ways and the chosen peers; raises ValueError on an unknown name."""
    return ENGINE[device] | {name: partial(make_peer, name) for name in choose(peers, device)}


def make_peer(name: str, ddim_run: DDIMRun) -> Contender:
    if lacking := missing(name):
        raise ImportError(f"it needs {', '.join(lacking)}: pip install {' '.join(lacking)}")
    module, function = PEERS[name][0].split(":")
    return getattr(importlib.import_module(f"..peers.{module}", __package__), function)(ddim_run)


def compare(
    workload: str, ddim_run: DDIMRun, makers: dict[str, Make], repeats: int
) -> list[results.Row]:
    """The rows of all contenders that can be made; nothing is timed before all of them agree."""
    ready = prepare(ddim_run, makers)
    clock = timing.wall_clock(ddim_run.device)
    tasks = [Task(name, [it.contender.run]) for name, it in ready.items()]
    idle = [Task(name, [it.contender.idle]) for name, it in ready.items()]
    flop = 0
    if ddim_run.device.type == "cpu":  # among the runs, so that it sees the same machine
        flop, product = layers.product(ddim_run.device, ddim_run.dtype)
        tasks.append(Task("product", [product]))
    others = timing.Others()
    times = timing.interleave(tasks, repeats, clock, warm_up=1)
    shared: dict[str, Any] = {
        "workload": workload, "dtype": results.dtype_name(ddim_run.dtype),
        "shape": results.dims(ddim_run.noise.shape), "steps": ddim_run.steps,
        "repeats": repeats, "others": others.share(), "date": results.now(),
    }  # fmt: skip
    outside = timing.interleave(idle, IDLE, clock)
    rate = flop / times["product"].median if flop else None
    least = lower_bound.microseconds(workload, ddim_run, rate)
    peers = [times[name].median for name in ready if name in PEERS]
    rows = []
    for name, it in ready.items():
        found = shared | figures(times[name], len(ddim_run.noise)) | vars(it)
        found["outside_us"] = outside[name].median / ddim_run.steps
        found["kernels"] = lower_bound.kernels(found.pop("contender").run, ddim_run)
        if peers and name not in PEERS:
            found["vs_best_peer"] = min(peers) / times[name].median
        if least is not None:
            found["floor_share"] = least / times[name].median
        version = it.contender.version
        rows.append(
            results.row(ddim_run.device, results.RUN_KEYS, contender=name, version=version, **found)
        )
    return rows


def figures(run: Spread, images: int) -> dict[str, float]:
    """The columns of a run's times, in milliseconds of an image."""
    scale = 1e-3 / images
    times = {
        "ms_per_image": run.median,
        "p20_ms": run.p20,
        "p80_ms": run.p80,
        "least_ms": run.least,
    }
    return {name: time * scale for name, time in times.items()}


def prepare(ddim_run: DDIMRun, makers: dict[str, Make]) -> dict[str, Ready]:
    """Makes every contender and its first samples; one that cannot be made is named and left out.

    Raises Disagreement where samples are not those of the formula with the network in float32. In half
    precision they may be twice as far from it as those of diffusers' loop.
    """
    want, allowed = ddim_run.reference(), LIMIT
    if ddim_run.dtype != torch.float32:
        allowed += 2 * difference(make_peer("diffusers", ddim_run).run(), want)
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # it counts what it compiled for other batches against a limit
    ready = {}
    for name, make in makers.items():
        gc.collect()
        start = time.perf_counter()
        try:
            with memory.growth(ddim_run.device) as peak:
                contender = make(ddim_run)
                got = contender.run()
                timing.settle(ddim_run.device)
        except Exception as error:
            reason = textwrap.shorten(str(error), 400)
            print(f"{name} is left out: {type(error).__name__}: {reason}", flush=True)
            continue
        first = time.perf_counter() - start
        far = difference(got, want)
        if not far <= allowed:
            raise Disagreement(
                f"{name}: its samples differ from the formula's by {far:.2g} of the largest element, "
                f"{allowed:.2g} is allowed; nothing was timed"
            )
        ready[name] = Ready(contender, far, first, peak[0] if peak else None)
    return ready


def ratios(rows: list[results.Row]) -> list[str]:
    """The lines that sum up one batch, for the engine's fastest way."""
    own = [row for row in rows if row["contender"] not in PEERS]
    peers = [row for row in rows if row["contender"] in PEERS]
    if not own:
        return ["the engine could not be run"]
    best = min(own, key=lambda row: row["ms_per_image"])
    name = f"{best['workload']} {best['shape']}: {best['contender']}"
    lines = [f"{name}, {best['ms_per_image']:.4g} ms an image"]
    if peers:
        bar = min(peers, key=lambda row: row["ms_per_image"])
        lines.append(f"  {best['vs_best_peer']:.2f}x the best peer, {bar['contender']}")
    if best["floor_share"] is not None:
        lines.append(f"  its lower bound is {best['floor_share']:.0%} of that")
    kernels = "" if best["kernels"] is None else f"{best['kernels']:.1f} kernels a step, "
    outside = [f"{row['contender']} {row['outside_us']:.0f}" for row in rows]
    lines.append(f"  {kernels}us a step outside the network: {', '.join(outside)}")
    if (best["others"] or 0.0) > QUIET:
        lines.append(f"  others kept {best['others']:.0%} of the cores busy: not to be committed")
    return lines
