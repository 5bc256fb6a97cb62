"""The code of the CUDA kernels run on the CPU, block by block and thread by thread."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from diffusion_engine.backends.native import Module, loaded
from diffusion_engine.ops.op import Implementation


@dataclass(frozen=True)
class OnHost(Module):
    """`_cuda` without a GPU; the grid is that of one with so many multiprocessors."""

    name: str = "_cuda"
    device: str = "cpu"
    multiprocessors: int = 132

    def kernel(self, op, device):
        run = getattr(loaded(self.name), f"{op}_on_host")
        return partial(run, multiprocessors=self.multiprocessors)

    def layer_kernel(self, op, device):
        """With scratch that is full of rubbish."""
        found = loaded(self.name)
        run, workspace = getattr(found, f"{op}_on_host"), getattr(found, f"{op}_workspace")

        def launch(p, addresses):
            scratch = torch.full((workspace(p, addresses),), 255, dtype=torch.uint8)
            run(p, addresses, scratch.data_ptr())

        return launch


def emulated(bind: Callable, objection: Callable | None = None, **grid: int) -> Implementation:
    """An op's bind of backends/ on the host."""
    more = {} if objection is None else {"objection": objection}
    return Implementation(bind=partial(bind, OnHost(**grid)), **more)
