"""What a run takes at least, and how many kernels it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from .problem import Problem

# Microseconds of a call in half precision on an H200, by workload and batch: the sum over convolutions,
# products and attention of max(FLOP / 790e12, bytes / 4.3e12), and a read and a write for each norm,
# concatenation and upsampling.
H200_US = {
    ("W1", 1): 32, ("W1", 16): 346, ("W1", 64): 1374, ("W1", 256): 5489,
    ("W2", 1): 76, ("W2", 64): 4283,
    ("W4", 1): 1242, ("W4", 2): 2316, ("W4", 16): 17991,
    ("W5", 1): 451, ("W5", 2): 768, ("W5", 16): 5254, ("W5", 64): 20635,
}  # fmt: skip


def microseconds(workload: str, problem: Problem, flop_rate: float | None) -> float | None:
    """Of a run: the network's operations at `flop_rate`, per microsecond, or a GPU's known figure; None
    where neither is known."""
    if flop_rate is not None:
        return problem.steps * flops(problem) / flop_rate
    known = H200_US.get((workload, len(problem.noise)))
    half = problem.dtype != torch.float32
    h200 = "H200" in torch.cuda.get_device_name(problem.device)
    return problem.steps * known if known and half and h200 else None


def flops(problem: Problem) -> int:
    """Floating-point operations of one call, a multiplication and an addition counted as two."""
    t = torch.tensor(problem.schedule.timesteps(problem.steps)[0], device=problem.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        problem.module(problem.noise.to(problem.dtype), t)
    return counter.get_total_flops()


def kernels(run: Callable[[], object], problem: Problem) -> float | None:
    """What a GPU runs in a step, copies included; None on a CPU."""
    if problem.device.type == "cpu":
        return None
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize(problem.device)
    return sum(e.device_type == DeviceType.CUDA for e in seen.events()) / problem.steps
