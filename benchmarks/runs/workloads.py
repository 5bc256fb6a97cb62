"""The workloads: networks that are sampled end to end as eps(x, t), with their schedules and batches."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..ddim_run import TRAINED, DDIMRun, Schedule, linear, stable_diffusion, vp
from .networks import diffusers, weights
from .networks.ddpmpp import DDPMpp


class Eps(nn.Module):
    """eps(x, t) of a network of diffusers, its condition inside: `fixed` are of one sample."""

    def __init__(self, network: nn.Module, **fixed: Tensor) -> None:
        super().__init__()
        self.network, self.names = network, tuple(fixed)
        for name, tensor in fixed.items():
            self.register_buffer(f"fixed_{name}", tensor)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: [B, C, H, W]; t: int64 timestep, one for all or [B]."""
        batch = x.shape[0]
        given = {n: getattr(self, f"fixed_{n}") for n in self.names}
        given = {n: v.expand(batch, *v.shape[1:]) for n, v in given.items()}
        out = self.network(x, t.expand(batch), **given, return_dict=False)[0]
        return out[:, : x.shape[1]]  # DiT's other half is a variance


class DigitEps(nn.Module):
    """The shipped network at the timesteps of a table: t = (timestep + 1) / 1000."""

    def __init__(self) -> None:
        super().__init__()
        from diffusion_engine import zoo

        self.network = zoo.load("digits").eval()
        self.register_buffer("digit", torch.tensor([7]))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        batch = x.shape[0]
        return self.network(x, (t.expand(batch) + 1) / TRAINED, self.digit.expand(batch))


@dataclass(frozen=True)
class Workload:
    """A network with the schedule and the batches of its runs.

    network   makes it as eps(x, t), on the CPU in float32
    shape     of one sample
    batches   of the network's calls on each device, where it is timed unless told otherwise
    """

    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    schedule: Callable[[], Schedule]
    batches: dict[str, tuple[int, ...]]

    def ddim_run(
        self, module: nn.Module, batch: int, steps: int, device: torch.device, dtype: torch.dtype
    ) -> DDIMRun:
        """The run of a module that `network` made, from noise that is the same on every device."""
        noise = torch.randn(batch, *self.shape, generator=torch.Generator().manual_seed(1))
        placed = copy.deepcopy(module).eval().to(device, dtype)
        return DDIMRun(placed, self.schedule(), noise.to(device), steps, dtype)


def _w1() -> nn.Module:
    return Eps(weights(diffusers.ddpm_cifar10()))


def _w2() -> nn.Module:
    return weights(DDPMpp())


def _w4() -> nn.Module:
    prompt = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(2))
    return Eps(weights(diffusers.stable_diffusion()), encoder_hidden_states=prompt)


def _w5() -> nn.Module:
    return Eps(weights(diffusers.dit()), class_labels=torch.tensor([207]))


WORKLOADS = {
    "W1": Workload(_w1, (3, 32, 32), linear, {"cpu": (1, 8), "cuda": (1, 64)}),
    "W2": Workload(_w2, (3, 32, 32), vp, {"cpu": (1,), "cuda": (1, 64)}),
    "W4": Workload(_w4, (4, 64, 64), stable_diffusion, {"cuda": (2, 16)}),
    "W5": Workload(_w5, (4, 32, 32), linear, {"cuda": (1, 16)}),
    "digits": Workload(DigitEps, (1, 32, 32), vp, {"cpu": (1, 16), "cuda": (1, 16)}),
}
