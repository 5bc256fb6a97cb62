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
from torch import Tensor

from . import floor, layers, memory, results, run, timing
from .gate import GateError
from .ours import OURS
from .peers import PEERS, Contender, choose, missing
from .problem import WORKLOADS, Problem
from .timing import Spread, Task

REPEATS = {"cpu": 5, "cuda": 20}
IDLE = 30  # repeats of a loop without its network
QUIET = 0.1  # share of the cores that others may take
LIMIT = 1e-3  # of the largest element, in float32

Make = Callable[[Problem], Contender]


@dataclass(frozen=True)
class Ready:
    """A contender that has passed the gate, and what its first run took and was."""

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
        problem = Problem.of(module, workload, batch, given.steps, device, dtype)
        return compare(given.workload, problem, makers, given.repeats or REPEATS[device.type])

    def keep(found: list[results.Row]) -> None:
        for row in found:
            results.show(row, header=not rows, shown=results.RUN_SHOWN)
            rows.append(row)
        print("\n".join(ratios(found)), flush=True)
        if found and not given.no_save:
            print(f"{len(found)} rows appended to {results.save(found, results.RUNS)}")

    run.finish(run.compare_all([partial(comparison, batch) for batch in batches], keep))


def contenders(peers: str, device: str) -> dict[str, Make]:
    """Ours and the chosen peers; raises ValueError on an unknown name."""
    return OURS[device] | {name: partial(make_peer, name) for name in choose(peers, device)}


def make_peer(name: str, problem: Problem) -> Contender:
    if lacking := missing(name):
        raise ImportError(f"it needs {', '.join(lacking)}: pip install {' '.join(lacking)}")
    module, function = PEERS[name][0].split(":")
    return getattr(importlib.import_module(f".peers.{module}", __package__), function)(problem)


def compare(
    workload: str, problem: Problem, makers: dict[str, Make], repeats: int
) -> list[results.Row]:
    """Rows of all contenders that can be made. Nothing is timed before all of them agree."""
    ready = prepare(problem, makers)
    clock = timing.wall_clock(problem.device)
    tasks = [Task(name, [it.contender.run]) for name, it in ready.items()]
    idle = [Task(name, [it.contender.idle]) for name, it in ready.items()]
    flop = 0
    if problem.device.type == "cpu":  # among the runs, so that it sees the same machine
        flop, product = layers.product(problem.device, problem.dtype)
        tasks.append(Task("product", [product]))
    others = timing.Others()
    times = timing.interleave(tasks, repeats, clock, warm_up=1)
    shared: dict[str, Any] = {
        "workload": workload, "dtype": str(problem.dtype).removeprefix("torch."),
        "shape": "x".join(map(str, problem.noise.shape)), "steps": problem.steps,
        "repeats": repeats, "others": others.share(), "date": results.now(),
    }  # fmt: skip
    outside = timing.interleave(idle, IDLE, clock)
    rate = flop / times["product"].median if flop else None
    least = floor.microseconds(workload, problem, rate)
    peers = [times[name].median for name in ready if name in PEERS]
    rows = []
    for name, it in ready.items():
        found = shared | figures(times[name], len(problem.noise)) | vars(it)
        found["outside_us"] = outside[name].median / problem.steps
        found["kernels"] = floor.kernels(found.pop("contender").run, problem)
        if peers and name not in PEERS:
            found["vs_best_peer"] = min(peers) / times[name].median
        if least is not None:
            found["floor_share"] = least / times[name].median
        version = it.contender.version
        rows.append(
            results.row(problem.device, results.RUN_KEYS, contender=name, version=version, **found)
        )
    return rows


def figures(run: Spread, images: int) -> dict[str, float]:
    """Microseconds of a run as milliseconds of an image."""
    scale = 1e-3 / images
    times = {
        "ms_per_image": run.median,
        "p20_ms": run.p20,
        "p80_ms": run.p80,
        "least_ms": run.least,
    }
    return {name: time * scale for name, time in times.items()}


def prepare(problem: Problem, makers: dict[str, Make]) -> dict[str, Ready]:
    """Makes every contender and its first samples; one that cannot be made is named and left out.

    Raises GateError where samples are not those of the formula with the network in float32. In half
    precision they may be twice as far from it as those of diffusers' loop.
    """
    want, allowed = problem.reference(), LIMIT
    if problem.dtype != torch.float32:
        allowed += 2 * difference(make_peer("diffusers", problem).run(), want)
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # it counts what it compiled for other batches against a limit
    ready = {}
    for name, make in makers.items():
        gc.collect()
        start = time.perf_counter()
        try:
            with memory.growth(problem.device) as peak:
                contender = make(problem)
                got = contender.run()
                timing.settle(problem.device)
        except Exception as error:
            reason = textwrap.shorten(str(error), 400)
            print(f"{name} is left out: {type(error).__name__}: {reason}", flush=True)
            continue
        first = time.perf_counter() - start
        far = difference(got, want)
        if not far <= allowed:
            raise GateError(
                f"{name}: its samples differ from the formula's by {far:.2g} of the largest element, "
                f"{allowed:.2g} is allowed; nothing was timed"
            )
        ready[name] = Ready(contender, far, first, peak[0] if peak else None)
    return ready


def difference(got: Tensor, want: Tensor) -> float:
    """The largest, relative to the largest element."""
    return float((got.double() - want).abs().max() / want.abs().max())


def ratios(rows: list[results.Row]) -> list[str]:
    """What the rows of one batch come to, of the fastest of ours."""
    ours = [row for row in rows if row["contender"] not in PEERS]
    peers = [row for row in rows if row["contender"] in PEERS]
    if not ours:
        return ["nothing of ours could be run"]
    best = min(ours, key=lambda row: row["ms_per_image"])
    name = f"{best['workload']} {best['shape']}: {best['contender']}"
    lines = [f"{name}, {best['ms_per_image']:.4g} ms an image"]
    if peers:
        bar = min(peers, key=lambda row: row["ms_per_image"])
        lines.append(f"  {best['vs_best_peer']:.2f}x the best peer, {bar['contender']}")
    if best["floor_share"] is not None:
        lines.append(f"  {100 * best['floor_share']:.0f} % of the floor")
    kernels = "" if best["kernels"] is None else f"{best['kernels']:.1f} kernels a step, "
    outside = [f"{row['contender']} {row['outside_us']:.0f}" for row in rows]
    lines.append(f"  {kernels}us a step outside the network: {', '.join(outside)}")
    if (best["others"] or 0.0) > QUIET:
        lines.append(f"  others kept {best['others']:.0%} of the cores busy: not to be committed")
    return lines
