"""Requests to a service, and networks that workers load by "worker_cases:NAME"."""

from __future__ import annotations

import numpy as np
import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import VP
from diffusion_engine.workers.messages import Asked

SHAPE = (2, 4, 4)
SPECS = (
    {"solver": "ddim", "steps": 4},
    {"solver": "unipc", "steps": 6},
    {"solver": {"name": "dpmpp_2m_sde", "options": {"eta": 0.5}}, "steps": 5},
    {"solver": "heun", "steps": 3, "guidance": 2.0},
)


def small(x, label, y):
    """Elementwise: its bits depend on no call."""
    return torch.tanh(x * (1.0 + 0.1 * y.to(x.dtype).view(-1, 1, 1, 1)))


def network(module=small, name="tiny"):
    return ScoreNetwork(module, VP(), SHAPE, null=10, classes=10, name=name)


def asked(number=0, model="tiny", **said):
    """A request, another for each number."""
    given = {
        "id": f"r{number}", "model": model, "spec": SPECS[number % len(SPECS)],
        "seeds": [3 * number + i for i in range(1 + number % 3)],
    }  # fmt: skip
    given["condition"] = [seed % 10 for seed in given["seeds"]]
    return Asked(**given | said)


def alone(request, module=small):
    """The samples that a Sampler makes of a request."""
    spec = dict(request.spec)
    solver = spec.pop("solver")
    options = {} if isinstance(solver, str) else solver["options"]
    name = solver if isinstance(solver, str) else solver["name"]
    sampler = Sampler(network(module), name, **spec, **options)
    given = {k: torch.from_numpy(v) for k, v in request.tensors.items()}
    for key in ("start", "guidance", "compose"):
        if (value := getattr(request, key)) is not None:
            given[key] = value
    given |= {} if request.condition is None else {"condition": request.condition}
    given |= {"noised": True} if request.noised else {}
    return sampler.sample(seeds=request.seeds, **given).samples.numpy()


def equal(made, request, module=small):
    """Whether a result has the bits that a Sampler alone makes."""
    return np.array_equal(made.samples, alone(request, module)) and made.seeds == request.seeds
