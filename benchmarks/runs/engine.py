"""The engine as a contender: Sampler in the ways that suit a device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffusion_engine import Sampler, ScoreNetwork

from .. import results
from ..ddim_run import DDIMRun
from ..peers import Contender


def score_network(ddim_run: DDIMRun, module: Callable[..., Any]) -> ScoreNetwork:
    """A ScoreNetwork on the run's table, which tells the module the timestep as an integer."""
    return ScoreNetwork(
        module, ddim_run.process, ddim_run.shape, prediction="eps", label_dtype=torch.int64, inference=True
    )  # fmt: skip


def sampler(ddim_run: DDIMRun, module: Callable[..., Any], **how: Any) -> Sampler:
    """A Sampler of DDIM over exactly the run's timesteps."""
    network, schedule = score_network(ddim_run, module), ddim_run.schedule
    end = network.process.clean.t if schedule.to_clean else 0
    return Sampler(
        network, "ddim", times=[*schedule.timesteps(ddim_run.steps), end], device=ddim_run.device,
        batch_size=len(ddim_run.noise), **{"dtype": ddim_run.dtype} | how,
    )  # fmt: skip


def contender(ddim_run: DDIMRun, accelerate: bool = False, **how: Any) -> Contender:
    """The engine in one of its ways.

    how  `executor` and `compile` of Sampler
    """
    made = sampler(ddim_run, ddim_run.network(), accelerate=accelerate, **how)
    ready = torch.randn_like(ddim_run.noise, dtype=ddim_run.dtype)
    executor = {name: value for name, value in how.items() if name == "executor"}
    idle = sampler(ddim_run, lambda x, t: ready, **executor)

    def run(sampler: Sampler) -> Tensor:
        return sampler.sample(x=ddim_run.noise, noised=True, progress=False).samples

    return Contender(partial(run, made), partial(run, idle), results.version("diffusion-engine"))


# name in rows -> what makes it
ENGINE: dict[str, dict[str, Callable[[DDIMRun], Contender]]] = {
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
