"""k-diffusion's loop: Euler on the VP sigmas is DDIM."""

from __future__ import annotations

from collections.abc import Callable

import k_diffusion
import torch
from torch import Tensor

from .. import results
from ..ddim_run import DDIMRun
from . import Contender


def euler(ddim_run: DDIMRun) -> Contender:
    network, ready = ddim_run.network(), torch.randn_like(ddim_run.noise, dtype=ddim_run.dtype)
    return Contender(
        _loop(ddim_run, network),
        _loop(ddim_run, lambda x, t: ready),
        results.version("k-diffusion"),
    )


def _loop(ddim_run: DDIMRun, network: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Tensor]:
    """The loop of a run, whose state is x / alpha.

    It is in float32: a sigma in half precision would find another timestep.
    """
    schedule = ddim_run.schedule
    table = torch.tensor(schedule.alpha_bar, dtype=torch.float32, device=ddim_run.device)

    def eps(x: Tensor, t: Tensor) -> Tensor:
        return network(x.to(ddim_run.dtype), t).float()

    denoiser = k_diffusion.external.DiscreteEpsDDPMDenoiser(eps, table, quantize=True)
    visited = denoiser.sigmas[schedule.timesteps(ddim_run.steps)]
    last = visited.new_zeros(1) if schedule.to_clean else denoiser.sigmas[:1]
    sigmas = torch.cat([visited, last])
    x = ddim_run.noise * (1.0 + visited[0] ** 2).sqrt()
    alpha = (1.0 + last[0] ** 2).rsqrt()

    def run() -> Tensor:
        with torch.inference_mode():
            return k_diffusion.sampling.sample_euler(denoiser, x, sigmas, disable=True) * alpha

    return run
