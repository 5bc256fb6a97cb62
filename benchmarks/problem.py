"""What is sampled end to end: a network, the noise, and the timesteps, the same for everybody."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_engine.processes import VP, Discrete

from . import workloads
from .ddpmpp import DDPMpp

TRAINED = 1000  # timesteps of every table below


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


@dataclass(frozen=True, eq=False)
class Schedule:
    """A table of betas and where runs of DDIM go on it, in the settings of diffusers.

    offset    steps_offset, which is added to the timesteps i (1000 // steps)
    to_clean  set_alpha_to_one: the last step goes to clean data; else to timestep 0
    """

    betas: np.ndarray
    offset: int = 0
    to_clean: bool = True

    @property
    def alpha_bar(self) -> np.ndarray:
        return np.cumprod(1.0 - self.betas)

    def timesteps(self, steps: int) -> list[int]:
        spacing = len(self.betas) // steps
        return [spacing * i + self.offset for i in reversed(range(steps))]

    def updates(self, steps: int) -> list[tuple[int, float, float]]:
        """(timestep, a, b) of every step x <- a x + b eps (Song et al. 2021, eq. 12, eta = 0)."""
        table, times = self.alpha_bar, self.timesteps(steps)
        levels = [*table[times], 1.0 if self.to_clean else table[0]]
        found = []
        for t, (now, then) in zip(times, pairwise(levels), strict=True):
            a = float(np.sqrt(then / now))
            found.append((t, a, float(np.sqrt(1.0 - then) - a * np.sqrt(1.0 - now))))
        return found


def linear() -> Schedule:
    return Schedule(np.linspace(1e-4, 0.02, TRAINED))


def stable_diffusion() -> Schedule:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, TRAINED) ** 2
    return Schedule(betas, offset=1, to_clean=False)


def vp() -> Schedule:
    """The continuous VP process at t = 1/1000, 2/1000 ... 1."""
    bar = VP().alpha(np.arange(1, TRAINED + 1) / TRAINED) ** 2
    return Schedule(1.0 - bar / np.append(1.0, bar[:-1]))


@dataclass(frozen=True)
class Workload:
    """How a network of `workloads.py` is sampled.

    network   makes it as eps(x, t), on the CPU in float32
    shape     of one sample
    batches   of the network's calls on each device, where it is timed unless told otherwise
    """

    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    schedule: Callable[[], Schedule]
    batches: dict[str, tuple[int, ...]]


def _w1() -> nn.Module:
    return Eps(workloads.weights(workloads.ddpm_cifar10()))


def _w2() -> nn.Module:
    return workloads.weights(DDPMpp())


def _w4() -> nn.Module:
    prompt = torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(2))
    return Eps(workloads.weights(workloads.stable_diffusion()), encoder_hidden_states=prompt)


def _w5() -> nn.Module:
    return Eps(workloads.weights(workloads.dit()), class_labels=torch.tensor([207]))


WORKLOADS = {
    "W1": Workload(_w1, (3, 32, 32), linear, {"cpu": (1, 8), "cuda": (1, 64)}),
    "W2": Workload(_w2, (3, 32, 32), vp, {"cpu": (1,), "cuda": (1, 64)}),
    "W4": Workload(_w4, (4, 64, 64), stable_diffusion, {"cuda": (2, 16)}),
    "W5": Workload(_w5, (4, 32, 32), linear, {"cuda": (1, 16)}),
    "digits": Workload(DigitEps, (1, 32, 32), vp, {"cpu": (1, 16), "cuda": (1, 16)}),
}


@dataclass(frozen=True, eq=False)
class Problem:
    """DDIM with `steps` steps of one network from one noise.

    module    eps(x, t), in `dtype` on `device`; contenders take copies
    noise     [B, *shape] float32, x at the first timestep
    """

    module: nn.Module
    schedule: Schedule
    noise: Tensor
    steps: int
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(
        cls, module: nn.Module, workload: Workload, batch: int, steps: int,
        device: torch.device, dtype: torch.dtype,
    ) -> Problem:  # fmt: skip
        """Noise is drawn on the CPU, so that every device starts from the same."""
        noise = torch.randn(batch, *workload.shape, generator=torch.Generator().manual_seed(1))
        placed = copy.deepcopy(module).eval().to(device, dtype)
        return cls(placed, workload.schedule(), noise.to(device), steps, dtype)

    @property
    def device(self) -> torch.device:
        return self.noise.device

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.noise.shape[1:])

    @property
    def process(self) -> Discrete:
        return Discrete.from_betas(self.schedule.betas)

    def network(self) -> nn.Module:
        """A copy of the module; nobody prepares weights that others use."""
        return copy.deepcopy(self.module)

    def reference(self) -> Tensor:
        """The samples by the formula, with the network in float32 and the state in float64."""
        network, x = self.network().float(), self.noise.double()
        with torch.inference_mode():
            for t, a, b in self.schedule.updates(self.steps):
                label = torch.tensor(t, device=self.device)
                x = a * x + b * network(x.float(), label).double()
        return x
