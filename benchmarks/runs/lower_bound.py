"""The least time of a run, and the number of its kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from ..ddim_run import DDIMRun

# Microseconds of a call in half precision on an H200, by workload and batch: the sum over convolutions,
# products and attention of max(FLOP / 790e12, bytes / 4.3e12), and a read and a write for each norm,
# concatenation and upsampling.
H200_US = {
    ("W1", 1): 32, ("W1", 16): 346, ("W1", 64): 1374, ("W1", 256): 5489,
    ("W2", 1): 76, ("W2", 64): 4283,
    ("W4", 1): 1242, ("W4", 2): 2316, ("W4", 16): 17991,
    ("W5", 1): 451, ("W5", 2): 768, ("W5", 16): 5254, ("W5", 64): 20635,
}  # fmt: skip


def microseconds(workload: str, ddim_run: DDIMRun, flop_rate: float | None) -> float | None:
    """The least time of a run, or None where it is not known.

    flop_rate  per microsecond, at which the network's operations are counted; without it a GPU's known figure
    """
    if flop_rate is not None:
        return ddim_run.steps * flops(ddim_run) / flop_rate
    known = H200_US.get((workload, len(ddim_run.noise)))
    half = ddim_run.dtype != torch.float32
    h200 = "H200" in torch.cuda.get_device_name(ddim_run.device)
    return ddim_run.steps * known if known and half and h200 else None


def flops(ddim_run: DDIMRun) -> int:
    """The floating-point operations of one call, a multiplication and an addition counted as two."""
    t = torch.tensor(ddim_run.schedule.timesteps(ddim_run.steps)[0], device=ddim_run.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ddim_run.module(ddim_run.noise.to(ddim_run.dtype), t)
    return counter.get_total_flops()


def kernels(run: Callable[[], object], ddim_run: DDIMRun) -> float | None:
    """The number of kernels that a GPU runs in a step, copies included; None on a CPU."""
    if ddim_run.device.type == "cpu":
        return None
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
        torch.cuda.synchronize(ddim_run.device)
    return sum(e.device_type == DeviceType.CUDA for e in seen.events()) / ddim_run.steps
