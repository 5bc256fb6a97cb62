"""What a process has one of, and a test may set."""

from contextlib import contextmanager

import torch

from diffusion_engine import trace
from diffusion_engine.backends import native


@contextmanager
def kept():
    """Threads, the instructions of the CPU kernels, torch's dtype and NVTX ranges end as they began."""
    cpu = native.module("_cpu")
    threads, dtype, traced = torch.get_num_threads(), torch.get_default_dtype(), trace.active()
    used = None if isinstance(cpu, str) else (cpu.isa(), cpu.bf16())
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        if used is not None:
            cpu.set_isa(used[0])
            cpu.set_bf16(used[1])
        if "nvtx" in trace.active() and "nvtx" not in traced:
            trace.disable()
