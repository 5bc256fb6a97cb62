"""Times the op `step`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from ... import results, shapes, timing
from ...peers import missing
from ...providers import backends
from ...shapes import Shape
from ...timing import Spread, Task
from . import agreement, plain
from .cases import CASES, Buffers, Case, engine
from .diffusers import Diffusers


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    """The comparisons of every case at every shape, one for each dtype of a network."""
    networks = [torch.float32] + ([torch.bfloat16] if device.type == "cuda" else [])
    for shape, layout in shapes.STATES:
        for case in CASES:
            if shapes.wanted(only, case.name, shape, layout):
                for network in networks:
                    yield partial(compare, case, shape, layout, network, device, repeats)


def compare(
    case: Case, shape: Shape, layout: str, network: torch.dtype, device: torch.device, repeats: int
) -> list[results.Row]:
    """The rows of all providers of one case, timed in one interleaved run once they agree."""

    def make() -> Buffers:
        return Buffers(case, shape, layout, network, device)

    first = make()
    cache = timing.cache_bytes(device)
    cold = timing.sets_needed(2 * first.x.nbytes, cache)  # what a copy touches, the least of all
    sets = [first, *(make() for _ in range(cold - 1))]
    tasks = contenders(case, sets, make, device, network, cold > 1)

    def refresh() -> None:
        for buffers in sets:
            buffers.reset()

    others = timing.Others()
    times = timing.interleave(tasks, repeats, timing.clock(device), refresh)
    shared: results.Row = {
        "op": "step", "case": case.name, "dtype": results.dtype_name(network),
        "shape": results.dims(shape), "layout": layout, "cache": timing.cache_name(cold),
        "repeats": repeats, "others": others.share(),
    }  # fmt: skip
    return [
        results.row(device, **shared, **figures(name, case, first, network, times))
        for name in times
    ]


def contenders(
    case: Case, sets: list[Buffers], make: Callable[[], Buffers], device: torch.device,
    network: torch.dtype, cold: bool,
) -> list[Task]:  # fmt: skip
    """Everyone who makes this step and agrees, and a copy of x for scale."""
    tasks = []
    for backend in backends("step", device.type, sets[0].x.numel()):
        agreement.check_engine(make, backend)
        tasks.append(Task(f"ours:{backend}", [engine(b, backend) for b in sets]))
    for variant in plain.variants(device.type, network, cold):
        agreement.check_plain(make, variant)
        tasks.append(Task(f"plain:{variant}", [plain.in_place(b, variant) for b in sets]))
    if not missing("diffusers"):
        peer = Diffusers(case, device)
        agreement.check_diffusers(make, peer)
        tasks.append(Task("diffusers", [peer.call(b) for b in sets]))
    tasks.append(Task("copy", [copy(b) for b in sets]))
    return tasks


def copy(buffers: Buffers) -> Callable[[], object]:
    return lambda: buffers.spare.copy_(buffers.x)


def figures(
    name: str, case: Case, buffers: Buffers, network: torch.dtype, times: dict[str, Spread]
) -> results.Row:
    """The columns of a time: bandwidth by the bytes of the formula, and ratios of medians."""
    time, elements = times[name], buffers.x.numel()
    count = 8 if name == "copy" else case.bytes(network)
    best = min(t.median for n, t in times.items() if n.startswith("plain:"))
    found = {"provider": name} | results.moved(time, elements, count)
    found["copy_share"] = count / 8 * times["copy"].median / time.median
    if name.startswith("ours:"):
        found["vs_best_torch"] = best / time.median
        found["vs_mul_add"] = times["plain:mul_add"].median / time.median
        if "diffusers" in times:
            found["vs_diffusers"] = times["diffusers"].median / time.median
    return found
