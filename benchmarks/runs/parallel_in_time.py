"""Times a run of the digits' network in order beside ParaDiGMS and ParaTAA at windows of its calls.

A window's calls are entries of one call of the network, which pays where such a call takes little longer than
one of a single entry. `case` says the window, and the rounds that the run took.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from diffusion_engine import Sampler
from diffusion_engine.drivers.paradigms import ParaDiGMS
from diffusion_engine.drivers.parataa import ParaTAA
from diffusion_engine.zoo import load_network

from .. import results, shapes, timing
from ..timing import Task

SOLVERS, STEPS = ("ddim", "dpmpp_2m"), 50
WINDOWS = (4, 8, 16, 32, 50)
SEED, DIGIT = 7, 3
SHAPE = (1, 1, 32, 32)


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for solver in SOLVERS:
        if shapes.wanted(only, f"parallel {solver}", SHAPE):
            yield partial(compare, device, max(3, repeats // 10), solver)


def compare(device: torch.device, repeats: int, solver: str) -> list[results.Row]:
    """The rows of a sample made in order, and at each window in parallel."""
    network = load_network("digits")
    runs: dict[tuple[str, str], ParaDiGMS | None] = {("in order", "ours"): None}
    for window in WINDOWS:
        runs[f"window {window}", "ours:paradigms"] = ParaDiGMS(window)
        runs[f"window {window}", "ours:parataa"] = ParaTAA(window)
    samplers = {
        name: Sampler(network, solver, STEPS, driver=driver, device=device)
        for name, driver in runs.items()
    }
    made, tasks = {}, []
    for name, sampler in samplers.items():
        run = partial(sampler.sample, 1, seed=SEED, condition=[DIGIT], progress=False)
        made[name] = run()
        tasks.append(Task(" ".join(name), [run]))
    others = timing.Others()
    times = timing.interleave(tasks, repeats, timing.wall_clock(device), warm_up=1)
    plain = made["in order", "ours"].samples
    rows = []
    for name, task in zip(samplers, tasks, strict=True):
        case, provider = name
        if reports := made[name].reports:
            case += f", {reports[0]['rounds']} rounds"
        rows.append(
            results.row(
                device, op="parallel_in_time", case=f"{solver}, {case}", provider=provider,
                dtype="float32", shape=results.dims(SHAPE), layout="contiguous", repeats=repeats,
                max_error=(made[name].samples - plain).abs().max().item(), others=others.share(),
                **times[task.name].columns(),
            )
        )  # fmt: skip
    return rows
