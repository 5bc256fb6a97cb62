"""k-diffusion's loop: Euler on the VP sigmas is DDIM."""

from __future__ import annotations

from collections.abc import Callable

import k_diffusion
import torch
from torch import Tensor

from .. import results
from ..problem import Problem
from . import Contender


def euler(problem: Problem) -> Contender:
    network, ready = problem.network(), torch.randn_like(problem.noise, dtype=problem.dtype)
    return Contender(
        _loop(problem, network),
        _loop(problem, lambda x, t: ready),
        results.version("k-diffusion"),
    )


def _loop(problem: Problem, network: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Tensor]:
    """Its state is x / alpha, in float32: a sigma in half precision would find another timestep."""
    schedule = problem.schedule
    table = torch.tensor(schedule.alpha_bar, dtype=torch.float32, device=problem.device)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        return network(x.to(problem.dtype), t).float()

    denoiser = k_diffusion.external.DiscreteEpsDDPMDenoiser(eps, table, quantize=True)
    visited = denoiser.sigmas[schedule.timesteps(problem.steps)]
    last = visited.new_zeros(1) if schedule.to_clean else denoiser.sigmas[:1]
    sigmas = torch.cat([visited, last])
    x = problem.noise * (1.0 + visited[0] ** 2).sqrt()
    alpha = (1.0 + last[0] ** 2).rsqrt()

    def run() -> Tensor:
        with torch.inference_mode():
            return k_diffusion.sampling.sample_euler(denoiser, x, sigmas, disable=True) * alpha

    return run
