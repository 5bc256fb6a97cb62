"""The run that everybody makes: a network, the noise, and the timesteps."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from diffusion_engine.processes import VP, Discrete

TRAINED = 1000  # timesteps of every table below


@dataclass(frozen=True, eq=False)
class Schedule:
    """A table of betas, with the timesteps of DDIM on it in the settings of diffusers.

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
        """The (timestep, a, b) of every step x <- a x + b eps (Song et al. 2021, eq. 12, eta = 0)."""
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


@dataclass(frozen=True, eq=False)
class DDIMRun:
    """DDIM with `steps` steps of one network from one noise.

    module    eps(x, t), in `dtype` on `device`; contenders take copies
    noise     [B, *shape] float32, x at the first timestep
    """

    module: nn.Module
    schedule: Schedule
    noise: Tensor
    steps: int
    dtype: torch.dtype = torch.float32

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
        """A copy of the module, so that nobody prepares weights that others use."""
        return copy.deepcopy(self.module)

    def reference(self) -> Tensor:
        """The samples by the formula, with the network in float32 and the state in float64."""
        network, x = self.network().float(), self.noise.double()
        with torch.inference_mode():
            for t, a, b in self.schedule.updates(self.steps):
                label = torch.tensor(t, device=self.device)
                x = a * x + b * network(x.float(), label).double()
        return x
