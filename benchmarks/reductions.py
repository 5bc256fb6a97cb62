"""What the ops share that make a few numbers of each sample: images, contenders, and a copy for scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_engine.ops import registry

from . import agreement, providers, results, timing
from .timing import Task

Calls = list[Callable[[], object]]


def images(
    shape: Sequence[int], layout: str, device: torch.device, tensors: int
) -> list[tuple[Tensor, ...]]:
    """Buffer sets of so many images each, as many as do not fit into the cache."""
    memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format

    def one() -> Tensor:
        return torch.randn(*shape, device=device).contiguous(memory_format=memory)

    first = tuple(one() for _ in range(tensors))
    cold = timing.sets_needed(tensors * first[0].nbytes, timing.cache_bytes(device))
    return [first, *(tuple(one() for _ in range(tensors)) for _ in range(cold - 1))]


def ours(op: str, bound: Sequence[Any]) -> dict[str, Calls]:
    """The calls of every backend on the sets' arguments; each agrees with the reference."""
    made = {}
    for backend in providers.backends(op, bound[0].x.device.type, bound[0].x.numel()):
        agreement.check_bits(op, backend, bound[0], bound[0].tensors())
        made[f"ours:{backend}"] = [
            partial(registry.resolve(op, backend, args), args.tensors()) for args in bound
        ]
    return made


def rows(
    case: results.Row, sets: list[tuple[Tensor, ...]], repeats: int, ours: dict[str, Calls], torchs: Calls
) -> list[results.Row]:  # fmt: skip
    """The rows of all, timed in one interleaved run.

    case    the op's name and the case's, and the layout
    torchs  what torch makes of each set
    """
    x = sets[0][0]
    spare = torch.empty_like(x)
    copies: Calls = [partial(spare.copy_, given[0]) for given in sets]
    everyone: dict[str, Calls] = ours | {"torch": torchs, "copy": copies}
    others = timing.Others()
    tasks = [Task(name, calls) for name, calls in everyone.items()]
    times = timing.interleave(tasks, repeats, timing.clock(x.device))
    shared = case | {
        "dtype": "float32", "shape": results.dims(x.shape), "cache": timing.cache_name(len(sets)),
        "repeats": repeats, "others": others.share(),
    }  # fmt: skip
    made = []
    for name, time in times.items():
        count = 8 if name == "copy" else 4 * len(sets[0])
        found = {"provider": name} | results.moved(time, x.numel(), count)
        found["copy_share"] = count / 8 * times["copy"].median / time.median
        if name.startswith("ours:"):
            found["vs_best_torch"] = times["torch"].median / time.median
        made.append(results.row(x.device, **shared, **found))
    return made
