"""Multistep sampling of consistency models, latent consistency models and TrigFlow's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..networks.prediction import Consistency as ConsistencyRule
from ..plan.linear import Linear, denoised, normal, x
from ..processes import Discrete, GaussianProcess, Point
from ..processes.grids import Grid, angles, distilled, karras_at
from .base import Points, Solver, Update, steps


@dataclass(frozen=True)
class Consistency(Solver):
    """x' = f(x, s) + sqrt(g_t^2 - g_min^2) z, f being `denoised`; the last x is f itself.

    The network's prediction is prediction.Consistency. With clip=(-1, 1), as published, f is clipped.

    indices  places of the run's levels on a Karras grid of `scales` levels, the last one scales - 1, e.g.
             (0, 22, 39) of 40 for 2 steps; None spaces the levels evenly on it
    scales   how many levels that grid has
    """

    name: ClassVar[str] = "consistency"
    source: ClassVar[str] = "Song et al. 2023 (consistency models), algorithm 1"
    order = 0  # the network has learned a step's whole function, which no number of steps refines
    keeps_noise: ClassVar[bool] = False
    on_path: ClassVar[bool] = False
    indices: tuple[int, ...] | None = None
    scales: int = 40

    def __post_init__(self) -> None:
        if self.indices is None:
            return
        places = tuple(self.indices) if isinstance(self.indices, (list, tuple)) else ()
        object.__setattr__(self, "indices", places)  # of JSON they are a list
        rising = all(isinstance(k, int) for k in places) and all(a < b for a, b in pairwise(places))
        if len(places) < 2 or not rising or places[0] < 0 or places[-1] != self.scales - 1:
            raise ValueError(
                f"indices={list(places)}: give 2 or more that rise to scales - 1 = {self.scales - 1}, where "
                "no noise is added"
            )

    @property
    def stochastic(self) -> bool:
        return True

    def default_grid(self, process: GaussianProcess) -> str | Grid | None:
        if process.at(process.t_max).alpha == 0.0:
            return None
        return partial(karras_at, indices=self.indices, scales=self.scales)

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        process, rule = parameterisation.process, parameterisation.prediction
        least = process.at(process.t_min).ratio
        if isinstance(rule, ConsistencyRule) and not math.isclose(rule.sigma_min, least):
            return (
                f"its function is x at sigma / alpha = {rule.sigma_min:g} and the process's times end at "
                f"{least:g}; give the prediction Consistency(sigma_min={least:g}), or another process"
            )
        return None

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        least = process.at(process.t_min).ratio
        for s, t in steps(points):
            noise = t.alpha * math.sqrt(max(t.ratio**2 - least**2, 0.0))
            noise = 0.0 if t is points[-1] else noise
            yield Update(s, {0: t.alpha * denoised + noise * normal(0)}, t)


@dataclass(frozen=True)
class LCM(Solver):
    """x' = alpha_t f + sigma_t z, f = c_skip x + c_out x0, at timestep s; the last x is f itself.

    c_skip = sd^2 / ((k s)^2 + sd^2), c_out = k s / sqrt((k s)^2 + sd^2) with sd = 0.5, of a table.
    Of other processes f is x0 itself, as flow matching's LCM takes it: there it is x at no noise already.

    scaling   k, timestep_scaling, of a table
    original  steps of the distillation, from which the run's timesteps are taken, of a table
    """

    name: ClassVar[str] = "lcm"
    source: ClassVar[str] = "Luo et al. 2023 (latent consistency models), algorithm 3"
    differs: ClassVar[str] = (
        "scaling and original are options here, which a scheduler's configuration does not set"
    )
    order = 0
    exact: ClassVar[bool] = False  # c_out is a little below 1
    keeps_noise: ClassVar[bool] = False
    on_path: ClassVar[bool] = False
    scaling: float = 10.0
    original: int = 50

    def __post_init__(self) -> None:
        if not isinstance(self.original, int) or self.original < 1 or not self.scaling > 0.0:
            raise ValueError(
                f"original={self.original!r}, scaling={self.scaling:g}: both are above 0, original is whole"
            )

    @property
    def stochastic(self) -> bool:
        return True

    def default_grid(self, process: GaussianProcess) -> str | Grid | None:
        return (
            partial(distilled, original=self.original) if isinstance(process, Discrete) else angles
        )

    def weights(self, process: GaussianProcess, s: Point) -> tuple[float, float]:
        """(c_skip, c_out)."""
        if not isinstance(process, Discrete):
            return 0.0, 1.0
        scaled, sd = self.scaling * s.t, 0.5
        square = scaled**2 + sd**2
        return sd**2 / square, scaled / math.sqrt(square)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            skip, out = self.weights(process, s)
            yield renoised(process, s, t, skip * x + out * denoised, t is points[-1])


@dataclass(frozen=True)
class SCM(Solver):
    """x' = cos t f + sin t sigma_data z, f = `denoised`, on TrigFlow; alpha_t f + sigma_t z on any process.
    The last x is f itself.

    intermediate  angle of the level between two steps; None spaces them evenly, as all other numbers of steps
    """

    name: ClassVar[str] = "scm"
    source: ClassVar[str] = "Lu & Song 2025 (sCM), section 2; Chen et al. 2025 (SANA-Sprint)"
    differs: ClassVar[str] = (
        "two steps meet at SANA-Sprint's and diffusers' 1.3, where the paper has intermediate=1.1; runs "
        "begin at pi / 2, which diffusers rounds to 1.5708"
    )
    order = 0
    keeps_noise: ClassVar[bool] = False
    on_path: ClassVar[bool] = False
    intermediate: float | None = 1.3

    def __post_init__(self) -> None:
        middle = self.intermediate
        if middle is not None and not 0.0 < middle < 0.5 * math.pi:
            raise ValueError(f"intermediate={middle:g}: an angle between 0 and pi / 2, or None")

    @property
    def stochastic(self) -> bool:
        return True

    def default_grid(self, process: GaussianProcess) -> str | Grid | None:
        return partial(angles, intermediate=self.intermediate)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            yield renoised(process, s, t, denoised, t is points[-1])


def renoised(process: GaussianProcess, s: Point, t: Point, f: Linear, last: bool) -> Update:
    """alpha_t f + sigma_t z, the last one without noise: the call makes the step to clean data."""
    noise = 0.0 if last else t.sigma
    return Update(s, {0: t.alpha * f + noise * normal(0)}, t, until=process.clean)
