"""Levels of the processes as torch functions of t, for what differentiates them or runs on a device.

Plans do not: their numbers are the float64 of `processes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, singledispatch
from typing import Any

import torch
from torch import Tensor

from . import EDM, VE, VP, Discrete, FlowMatching, SubVP, TrigFlow


@singledispatch
def levels(process: Any, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma at the times t, differentiable, in t's shape and dtype.

    A process of your own is added by `@levels.register`. Raises ValueError where a process is not known.
    """
    raise ValueError(
        f"alpha and sigma of {type(process).__name__} are not known as torch functions of t; add them with "
        "@diffusion_engine.processes.levels.levels.register: "
        f"def _(process: {type(process).__name__}, t): ..."
    )


@levels.register
def _vp(process: VP, t: Tensor) -> tuple[Tensor, Tensor]:
    log_alpha = _log_alpha(process, t)
    return log_alpha.exp(), torch.expm1(2.0 * log_alpha).neg().sqrt()


@levels.register
def _sub_vp(process: SubVP, t: Tensor) -> tuple[Tensor, Tensor]:
    log_alpha = _log_alpha(process, t)
    return log_alpha.exp(), torch.expm1(2.0 * log_alpha).neg()


def _log_alpha(process: VP, t: Tensor) -> Tensor:
    return -0.25 * t * t * (process.beta_max - process.beta_min) - 0.5 * t * process.beta_min


@levels.register
def _ve(process: VE, t: Tensor) -> tuple[Tensor, Tensor]:
    rate = math.log(process.sigma_max / process.sigma_min)
    return torch.ones_like(t), process.sigma_min * (rate * t).exp()


@levels.register
def _edm(process: EDM, t: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(t), t


@levels.register
def _flow(process: FlowMatching, t: Tensor) -> tuple[Tensor, Tensor]:
    return 1.0 - t, t


@levels.register
def _trig(process: TrigFlow, t: Tensor) -> tuple[Tensor, Tensor]:
    return t.cos(), process.sigma_data * t.sin()


@levels.register
def _discrete(process: Discrete, t: Tensor) -> tuple[Tensor, Tensor]:
    table = _table(process, t.device)
    last = len(table) - 2

    def between(low: Tensor) -> Tensor:
        low = low.detach().long().clamp(0, last)
        return table[low] + (t - low) * (table[low + 1] - table[low])

    # At a timestep the mean of both sides: its derivative is the central difference.
    lam = 0.5 * (between(t.floor()) + between(t.ceil() - 1.0))
    return torch.sigmoid(2.0 * lam).sqrt(), torch.sigmoid(-2.0 * lam).sqrt()


@lru_cache(maxsize=16)
def _table(process: Discrete, device: torch.device) -> Tensor:
    """lam of every timestep, float64."""
    return torch.from_numpy(process._lam).to(device)


@dataclass(frozen=True)
class Levels:
    """A Point for every entry of a batch: tensors [N] in place of numbers."""

    t: Tensor
    alpha: Tensor
    sigma: Tensor

    @classmethod
    def of(cls, process: Any, t: Tensor) -> Levels:
        """The levels of times t."""
        return cls(t, *levels(process, t))

    @property
    def lam(self) -> Tensor:
        """Half log-SNR."""
        return self.alpha.log() - self.sigma.log()

    @property
    def ratio(self) -> Tensor:
        """Noise-to-signal ratio g."""
        return self.sigma / self.alpha


def per_sample(number: Any, x: Tensor) -> Any:
    """[N] numbers as weights of x [N, ...], in its dtype; a plain number stays one."""
    if not isinstance(number, Tensor):
        return number
    return number.to(x.dtype).view(-1, *[1] * (x.ndim - 1))
