"""The fine solution of the probability flow ODE from given seeds, and how far samples lie from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import checks
from ..networks.network import ScoreNetwork
from ..processes import Discrete, GaussianProcess, Point
from ..processes.grids import Grid, lam_uniform
from ..sampler.sampler import Sampler

STEPS = 500  # of the digits' network 1e-4 is left then, and 5e-4 at 250
PURE = 1e4  # sigma / alpha behind the first step from pure noise, whose error is first order


def even(process: GaussianProcess, n: int) -> list[Point]:
    """n levels evenly spaced in log(alpha / sigma), from pure noise behind one small step."""
    first, last = process.noisiest, process.at(process.t_min)
    if first.alpha > 0.0:
        return lam_uniform(process, n)
    ratios = np.exp(np.linspace(math.log(PURE), math.log(last.ratio), n - 1))
    return [first, *map(process.at_ratio, ratios[:-1].tolist()), last]


@dataclass(frozen=True)
class Fine:
    """What makes a fine solution: DPM-Solver++(3M) from Heun's first step on a grid even in log(alpha /
    sigma), or on the timesteps of a network that is told whole numbers; of CLD its ODE in Heun's steps.

    name     of the solver
    options  its own
    steps    of the grid
    grid     as in Sampler
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    steps: int = STEPS
    grid: str | Grid | None = None

    @classmethod
    def of(cls, network: ScoreNetwork, steps: int = STEPS) -> Fine:
        """The one that suits a network."""
        steps = checks.whole("fine_steps", steps, 1, "steps of the fine solution, 1 or more")
        if network.process.parts > 1:
            return cls("cld_ode", {}, steps)
        options = {"start": "heun", "lower_order_final": False}
        process = network.process
        if isinstance(process, Discrete) and network.parameterisation.whole_label:
            most = max(1, len(process.alpha_bar) - 1)
            return cls("dpmpp_3m", options, min(steps, most), "linspace")
        return cls("dpmpp_3m", options, steps, even)

    def __str__(self) -> str:
        return f"{self.name} in {self.steps} steps"


def fine_solution(
    network: ScoreNetwork,
    seeds: Sequence[int],
    condition: Any = None,
    *,
    fine: Fine | None = None,
    **how: Any,
) -> Tensor:
    """Samples [n, *shape] of a network's ODE from the first noise of the seeds, by steps whose own error is
    far below that of runs of 50.

    condition  as Sampler.sample takes it
    fine       what makes it; Fine.of(network) where none is given
    how        further arguments of Sampler: guidance, interval, end, clip, device, executor, ...
    Raises ValueError where these make no sense.
    """
    fine = Fine.of(network) if fine is None else fine
    sampler = Sampler(network, fine.name, fine.steps, grid=fine.grid, **fine.options, **how)
    return sampler.sample(seeds=list(seeds), condition=condition).samples


def distances(samples: Tensor, fine: Tensor) -> Tensor:
    """Of each sample the root of the mean square of its difference from the fine solution, [n] float64."""
    if samples.shape != fine.shape:
        raise ValueError(
            f"samples {list(samples.shape)} and a fine solution {list(fine.shape)}: give those of the same "
            "seeds"
        )
    return (samples.double() - fine.double()).flatten(1).square().mean(dim=1).sqrt()


def distance(samples: Tensor, fine: Tensor) -> float:
    """The root of the mean square of the difference from the `fine` solution, over all samples."""
    return float(torch.sqrt(distances(samples, fine).square().mean()))
