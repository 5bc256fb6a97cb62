"""diffusers' DDIMScheduler around the network as it is, compiled, and in a CUDA graph of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch._inductor import list_mode_options

from ..ddim_run import DDIMRun
from . import Contender

Call = Callable[[Tensor, Tensor], Tensor]

# of torch.compile, as diffusers' own tuning for speed sets them (huggingface/diffusion-fast)
TUNED = {
    "conv_1x1_as_mm": True,
    "coordinate_descent_tuning": True,
    "coordinate_descent_check_all_directions": True,
    "epilogue_fusion": False,
}


class Loop:
    """The denoising loop of diffusers' pipelines, without their progress bar.

    Timesteps stay on the host for `step`, which reads the scheduler's tables with them: one on the
    GPU would make every step wait for it.
    """

    def __init__(self, ddim_run: DDIMRun) -> None:
        schedule = ddim_run.schedule
        scheduler = diffusers.DDIMScheduler(
            trained_betas=schedule.betas,
            clip_sample=False,
            steps_offset=schedule.offset,
            set_alpha_to_one=schedule.to_clean,
        )
        scheduler.set_timesteps(ddim_run.steps)
        self.scheduler, self.noise = scheduler, ddim_run.noise.to(ddim_run.dtype)
        self.times = [(int(t), t.to(ddim_run.device)) for t in scheduler.timesteps]

    def __call__(self, network: Call) -> Tensor:
        x, step = self.noise, self.scheduler.step
        with torch.inference_mode():
            for t, label in self.times:
                x = step(network(x, label), t, x, return_dict=False)[0]
        return x

    def contender(self, network: Call) -> Contender:
        ready = torch.randn_like(self.noise)
        return Contender(
            lambda: self(network), lambda: self(lambda x, t: ready), diffusers.__version__
        )


def eager(ddim_run: DDIMRun) -> Contender:
    return Loop(ddim_run).contender(ddim_run.network())


def channels_last(ddim_run: DDIMRun) -> Contender:
    loop = Loop(ddim_run)
    loop.noise = loop.noise.contiguous(memory_format=torch.channels_last)
    return loop.contender(_channels_last(ddim_run))


def _channels_last(ddim_run: DDIMRun) -> nn.Module:
    return ddim_run.network().to(memory_format=torch.channels_last)


def compiled(ddim_run: DDIMRun) -> Contender:
    return Loop(ddim_run).contender(torch.compile(ddim_run.network(), dynamic=False))


def reduce_overhead(ddim_run: DDIMRun) -> Contender:
    return _compiled(ddim_run, {"mode": "reduce-overhead"})


def max_autotune(ddim_run: DDIMRun) -> Contender:
    options = list_mode_options("max-autotune")
    return _compiled(ddim_run, {"options": options | TUNED})


def _compiled(ddim_run: DDIMRun, how: dict[str, Any]) -> Contender:
    loop = Loop(ddim_run)
    loop.noise = loop.noise.contiguous(memory_format=torch.channels_last)
    network = torch.compile(_channels_last(ddim_run), fullgraph=True, dynamic=False, **how)
    return loop.contender(network)


def graphed(ddim_run: DDIMRun) -> Contender:
    """A CUDA graph of the network alone, as engines capture it by hand; the scheduler stays outside."""
    loop = Loop(ddim_run)
    loop.noise = loop.noise.contiguous(memory_format=torch.channels_last)
    network = _channels_last(ddim_run)
    x, t = loop.noise.clone(memory_format=torch.preserve_format), loop.times[0][1].clone()
    graph, side = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode():
        with torch.cuda.stream(side):
            for _ in range(3):
                network(x, t)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(graph):
            out = network(x, t)

    def replay(given: Tensor, label: Tensor) -> Tensor:
        x.copy_(given)
        t.copy_(label)
        graph.replay()
        return out

    return loop.contender(replay)
