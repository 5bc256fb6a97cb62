"""Times one call of a workload's network before and after accelerate()."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffusion_engine.accelerate import accelerate

from .. import results, shapes, timing
from ..agreement import Disagreement, difference
from ..timing import Task
from .networks import diffusers, weights

BATCHES = {"cpu": (1, 8), "cuda": (1, 64)}
LIMIT = 1e-4  # of the largest output, in float32


def measure(device: torch.device, repeats: int, only: list[str]) -> Iterator[results.Comparison]:
    network = weights(diffusers.ddpm_cifar10()).to(device)
    for batch in BATCHES[device.type]:
        if shapes.wanted(only, "W1", (batch, 3, 32, 32)):
            x = torch.randn(batch, 3, 32, 32, device=device)
            yield partial(compare, "W1", network, x, repeats)


def compare(name: str, network: nn.Module, x: Tensor, repeats: int) -> list[results.Row]:
    t = torch.full((len(x),), 500, device=x.device)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(network)
    print(str(accelerate(fast, x, t)).splitlines()[-1])
    calls = {
        "diffusers": partial(_call, network, x, t),
        "diffusers:channels_last": partial(
            _call, last, x.contiguous(memory_format=torch.channels_last), t
        ),
        "ours:accelerate": partial(_call, fast, x, t),
    }
    want = calls["diffusers"]()
    errors = {}
    for who, run in calls.items():
        errors[who] = difference(run(), want)
        if not errors[who] <= LIMIT:
            raise Disagreement(f"{who}: the output of {name} differs by {errors[who]:.2g}")
    others = timing.Others()
    tasks = [Task(who, [run]) for who, run in calls.items()]
    found = timing.interleave(tasks, repeats, timing.clock(x.device))
    bar = min(found[who].median for who in ("diffusers", "diffusers:channels_last"))
    shared: dict[str, Any] = {
        "op": "accelerate", "case": name, "dtype": "float32", "shape": results.dims(x.shape),
        "repeats": repeats, "others": others.share(), "cache": "network",
    }  # fmt: skip
    return [
        results.row(
            x.device, **shared, provider=who, max_error=errors[who], **spread.columns(),
            vs_diffusers=bar / spread.median if who.startswith("ours") else None,
        )
        for who, spread in found.items()
    ]  # fmt: skip


def _call(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    return network(x, t, return_dict=False)[0]
