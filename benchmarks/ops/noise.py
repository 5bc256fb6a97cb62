"""Times the op `noise` against torch.randn, with the error of its normals beside the speed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from diffusion_engine.ops import philox, registry
from diffusion_engine.ops.noise import NoiseArgs

from .. import agreement, results, shapes, timing
from ..providers import backends
from ..shapes import Shape
from ..timing import Spread, Task

KEY, M = 7, 0


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    for shape, layout in shapes.STATES:
        if layout == "contiguous" and shapes.wanted(only, "noise", shape, layout):
            yield partial(compare, shape, device, repeats)


def compare(shape: Shape, device: torch.device, repeats: int) -> list[results.Row]:
    out = torch.empty(shape, device=device)
    cold = timing.sets_needed(out.nbytes, timing.cache_bytes(device))
    outs = [out, *(torch.empty_like(out) for _ in range(cold - 1))]
    seed = torch.arange(shape[0], device=device)
    tasks, error = [], {}
    for backend in backends("noise", device.type, out.numel()):
        agreement.check_bits("noise", backend, NoiseArgs(out, seed), KEY, M)
        error[f"ours:{backend}"] = float(np.abs(out.cpu().numpy() - exact(seed, shape)).max())
        bound = [registry.resolve("noise", backend, NoiseArgs(o, seed)) for o in outs]
        tasks.append(Task(f"ours:{backend}", [partial(launch, KEY, M) for launch in bound]))
    threads = torch.get_num_threads()
    tasks.append(Task("torch.randn", [draw(o) for o in outs]))
    if device.type == "cpu":
        tasks.append(_on_all_threads(outs, threads))
    others = timing.Others()
    times = timing.interleave(tasks, repeats, timing.clock(device))
    shared: results.Row = {
        "op": "noise", "case": "noise", "dtype": "float32", "shape": results.dims(shape),
        "layout": "contiguous", "cache": timing.cache_name(cold), "repeats": repeats,
        "others": others.share(),
    }  # fmt: skip
    return [
        results.row(device, **shared, **figures(name, out.numel(), times, error)) for name in times
    ]


def draw(out: Tensor) -> Callable[[], object]:
    return lambda: torch.randn(out.shape, out=out)


def _on_all_threads(outs: list[Tensor], threads: int) -> Task:
    every = os.cpu_count() or 1
    return Task(
        f"torch.randn/{every}",
        [draw(o) for o in outs],
        before=lambda: torch.set_num_threads(every),
        after=lambda: torch.set_num_threads(threads),
    )


def figures(
    name: str, elements: int, times: dict[str, Spread], error: dict[str, float]
) -> results.Row:
    time = times[name]
    found = {"provider": name, "max_error": error.get(name)} | results.moved(time, elements, 4)
    if name.startswith("ours:"):
        found["vs_best_torch"] = times["torch.randn"].median / time.median
    return found


def exact(seed: Tensor, shape: Shape) -> np.ndarray:
    """The normals that Box-Muller makes of the same words in float64."""
    count = int(np.prod(shape[1:]))
    samples = []
    for s in seed.tolist():
        group = torch.arange((count + 3) // 4)
        zero = torch.zeros_like(group)
        key = [zero + (s & philox.MASK), zero + (s >> 32 & philox.MASK)]
        words = philox.philox(group, zero, zero + KEY, zero + M, *key)
        a, b, c, d = (w.numpy().astype(np.float64) for w in words)
        samples.append(np.stack([*box_muller(a, b), *box_muller(c, d)], axis=-1).ravel()[:count])
    return np.stack(samples).reshape(shape)


def box_muller(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sqrt(-2 ln u) (cos, sin)(2 pi b / 2^32), u = (a + 1/2) / 2^32."""
    radius = np.sqrt(-2.0 * np.log((a + 0.5) * 2.0**-32))
    angle = b * (2.0 * np.pi * 2.0**-32)
    return radius * np.cos(angle), radius * np.sin(angle)
