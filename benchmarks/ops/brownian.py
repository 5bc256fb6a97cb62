"""Times the op `brownian` against a sum of as many torch.randn, and against the one draw of no path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.ops import registry
from diffusion_engine.ops.brownian import BrownianArgs
from diffusion_engine.plan import brownian
from diffusion_engine.processes import VP

from .. import agreement, results, shapes, timing
from ..providers import backends
from ..shapes import Shape
from ..timing import Task

STEPS, ROW = 20, 10


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for shape, layout in shapes.STATES:
        if layout == "contiguous" and shapes.wanted(only, "brownian", shape, layout):
            yield partial(compare, shape, device, repeats)


def arguments(out: Tensor) -> BrownianArgs:
    """The middle row of 20 steps of DPM-Solver++(2M) SDE, which has one normal."""
    network = ScoreNetwork(lambda x, label: x, VP(), (1,))
    packed = brownian.pack(Sampler(network, "dpmpp_2m_sde", STEPS).plan())
    seed = torch.arange(len(out), device=out.device)
    row = torch.full((len(out),), ROW, dtype=torch.int32, device=out.device)
    tables = (torch.from_numpy(rows[:, :1].copy()).to(out.device) for rows in packed)
    return BrownianArgs(out[None], seed, row, *tables)


def compare(shape: Shape, device: torch.device, repeats: int) -> list[results.Row]:
    out = torch.empty(shape, device=device)
    cold = timing.sets_needed(out.nbytes, timing.cache_bytes(device))
    outs = [out, *(torch.empty_like(out) for _ in range(cold - 1))]
    bound = [arguments(o) for o in outs]
    weights = bound[0].weight[ROW, 0, : int(bound[0].terms[ROW, 0, 0])].tolist()
    tasks = []
    for backend in backends("brownian", device.type, out.numel()):
        agreement.check_bits("brownian", backend, bound[0])
        launches = [registry.resolve("brownian", backend, args) for args in bound]
        tasks.append(Task(f"ours:{backend}", list(launches)))
    tasks.append(Task(f"torch.randn x{len(weights)}", [summed(o, weights) for o in outs]))
    tasks.append(Task("torch.randn", [lambda o=o: torch.randn(o.shape, out=o) for o in outs]))
    others = timing.Others()
    times = timing.interleave(tasks, repeats, timing.clock(device))
    shared: results.Row = {
        "op": "brownian", "case": f"brownian-{len(weights)}", "dtype": "float32",
        "shape": results.dims(shape), "layout": "contiguous", "cache": timing.cache_name(cold),
        "repeats": repeats, "others": others.share(),
    }  # fmt: skip
    best = times[tasks[-2].name].median
    rows = []
    for name, time in times.items():
        found = {"provider": name} | results.moved(time, out.numel(), 4)
        if name.startswith("ours:"):
            found["vs_best_torch"] = best / time.median
        rows.append(results.row(device, **shared, **found))
    return rows


def summed(out: Tensor, weights: list[float]) -> Callable[[], object]:
    z = torch.empty_like(out)

    def run() -> None:
        out.zero_()
        for weight in weights:
            torch.randn(z.shape, out=z)
            out.add_(z, alpha=weight)

    return run
