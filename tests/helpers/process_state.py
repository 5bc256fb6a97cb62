"""What a process has one of, and a test may set."""

from contextlib import contextmanager

import torch

from diffusion_engine import trace
from diffusion_engine.backends import native


@contextmanager
def kept():
    """Threads, the instruction set of the CPU kernels, torch's dtype and NVTX ranges end as they began."""
    cpu = native.module("_cpu")
    threads, dtype, traced = torch.get_num_threads(), torch.get_default_dtype(), trace.active()
    isa = None if isinstance(cpu, str) else cpu.isa()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)
        if isa is not None:
            cpu.set_isa(isa)
        if "nvtx" in trace.active() and "nvtx" not in traced:
            trace.disable()
