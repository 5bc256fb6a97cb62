"""The engine as a contender: Sampler in the ways that suit a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_engine import Sampler, ScoreNetwork

from . import results
from .peers import Contender
from .problem import Problem


def score_network(problem: Problem, module: Callable[..., Any]) -> ScoreNetwork:
    """A module told the timestep as an integer, on the table of the problem."""
    return ScoreNetwork(
        module, problem.process, problem.shape, prediction="eps", label_dtype=torch.int64, inference=True
    )  # fmt: skip


def sampler(problem: Problem, module: Callable[..., Any], **how: Any) -> Sampler:
    """DDIM over exactly the problem's timesteps."""
    network, schedule = score_network(problem, module), problem.schedule
    end = network.process.clean.t if schedule.to_clean else 0
    return Sampler(
        network, "ddim", times=[*schedule.timesteps(problem.steps), end], dtype=problem.dtype,
        device=problem.device, batch_size=len(problem.noise), **how,
    )  # fmt: skip


def contender(problem: Problem, accelerate: bool = False, **how: Any) -> Contender:
    """how  `executor` and `compile` of Sampler"""
    made = sampler(problem, problem.network(), accelerate=accelerate, **how)
    ready = torch.randn_like(problem.noise, dtype=problem.dtype)
    executor = {name: value for name, value in how.items() if name == "executor"}
    idle = sampler(problem, lambda x, t: ready, **executor)

    def run(sampler: Sampler) -> Tensor:
        return sampler.sample(x=problem.noise, noised=True, progress=False).samples

    return Contender(partial(run, made), partial(run, idle), results.version("diffusion-engine"))


# name -> what makes it
OURS: dict[str, dict[str, Callable[[Problem], Contender]]] = {
    "cpu": {
        "ours": contender,
        "ours:accelerate": partial(contender, accelerate=True),
    },
    "cuda": {
        "ours": contender,
        "ours:accelerate": partial(contender, accelerate=True),
        "ours:graph": partial(contender, accelerate=True, executor="graph"),
        "ours:compile": partial(contender, compile=True, executor="graph"),
    },
}
