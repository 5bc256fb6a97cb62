"""Times the op `step`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from . import gate, results, timing
from .cases import CASES, SHAPES, Buffers, Case, Shape, backends, ours
from .peers import missing
from .peers import step as peers
from .timing import Spread, Task


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    """Rows of every case at every shape whose label holds all words."""
    networks = [torch.float32] + ([torch.bfloat16] if device.type == "cuda" else [])
    for shape, layout in SHAPES:
        for case in CASES:
            if all(word in label(case, shape, layout) for word in only):
                for network in networks:
                    yield partial(compare, case, shape, layout, network, device, repeats)


def label(case: Case, shape: Shape, layout: str) -> str:
    return f"{case.name} {'x'.join(map(str, shape))} {layout}"


def compare(
    case: Case, shape: Shape, layout: str, network: torch.dtype, device: torch.device, repeats: int
) -> list[results.Row]:
    """Rows of all providers of one case, in one interleaved run behind the gate."""

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
    shared = {
        "op": "step",
        "case": case.name,
        "dtype": str(network).removeprefix("torch."),
        "shape": "x".join(map(str, shape)),
        "layout": layout,
        "cache": f"cold/{cold}" if cold > 1 else "hot",
        "repeats": repeats,
        "others": others.share(),
    }
    return [
        results.row(device, **shared, **figures(name, case, first, network, times))
        for name in times
    ]


def contenders(
    case: Case, sets: list[Buffers], make: Callable[[], Buffers], device: torch.device,
    network: torch.dtype, cold: bool,
) -> list[Task]:  # fmt: skip
    """Everyone who makes this step, each after passing the gate, and a copy of x for scale."""
    tasks = []
    for backend in backends("step", device.type, sets[0].x.numel()):
        gate.check_ours(make, backend)
        tasks.append(Task(f"ours:{backend}", [ours(b, backend) for b in sets]))
    for variant in peers.variants(device.type, network, cold):
        gate.check_plain(make, variant)
        tasks.append(Task(f"plain:{variant}", [peers.plain(b, variant) for b in sets]))
    if not missing("diffusers"):
        peer = peers.Diffusers(case, device)
        gate.check_diffusers(make, peer)
        tasks.append(Task("diffusers", [peer.call(b) for b in sets]))
    tasks.append(Task("copy", [copy(b) for b in sets]))
    return tasks


def copy(buffers: Buffers) -> Callable[[], object]:
    return lambda: buffers.spare.copy_(buffers.x)


def figures(
    name: str, case: Case, buffers: Buffers, network: torch.dtype, times: dict[str, Spread]
) -> results.Row:
    """What follows from the times: bandwidth by the bytes of the formula, and ratios of medians."""
    time, elements = times[name], buffers.x.numel()
    count = 8 if name == "copy" else case.bytes(network)
    best = min(t.median for n, t in times.items() if n.startswith("plain:"))
    found: results.Row = {
        "provider": name,
        "median_us": time.median,
        "p20_us": time.p20,
        "p80_us": time.p80,
        "bytes_per_element": count,
        "gb_s": count * elements / time.median * 1e-3,
        "ns_per_element": time.median * 1e3 / elements,
    }
    found["copy_share"] = count / 8 * times["copy"].median / time.median
    if name.startswith("ours:"):
        found["vs_best_torch"] = best / time.median
        found["vs_mul_add"] = times["plain:mul_add"].median / time.median
        if "diffusers" in times:
            found["vs_diffusers"] = times["diffusers"].median / time.median
    return found
