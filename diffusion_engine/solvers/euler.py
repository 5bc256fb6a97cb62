"""Euler's method for the probability flow ODE, with and without churn, and its ancestral form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, normal, x
from ..processes import GaussianProcess, Point
from . import cfg_pp
from .base import Points, Solver, Update, steps, transfer


@dataclass(frozen=True)
class Churned(Solver):
    """What EDM's stochastic samplers share: noise added before a step (Karras et al. 2022, alg. 2).

    s_churn  total amount; each of N steps raises g by min(s_churn / N, churn_limit)
    s_tmin, s_tmax  range of g in which noise is added, ends included
    s_noise  multiplies the noise
    churn_limit  of a step; DPDM's is 1
    """

    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    churn_limit: float = math.sqrt(2.0) - 1.0

    def __post_init__(self) -> None:
        if not self.churn_limit >= 0.0:
            raise ValueError(f"churn_limit={self.churn_limit:g}: a limit of churn is 0 or above")

    @property
    def stochastic(self) -> bool:
        return self.s_churn > 0.0

    def churn(self, process: GaussianProcess, s: Point, count: int) -> tuple[Point, float]:
        """The raised point and the noise that leads to it, for one of `count` steps."""
        if self.s_churn <= 0.0 or s.alpha == 0.0 or not self.s_tmin <= s.ratio <= self.s_tmax:
            return s, 0.0
        gamma = min(self.s_churn / count, self.churn_limit)
        raised = process.at_ratio(s.ratio * (1.0 + gamma))
        return raised, raised.alpha * math.sqrt(raised.ratio**2 - s.ratio**2) * self.s_noise


def slope(at: Point, state: Linear) -> Linear:
    """d(x / alpha) / dg = eps = (x / alpha - x0) / g."""
    return (state / at.alpha - denoised) / at.ratio


@dataclass(frozen=True)
class Euler(Churned):
    """x / alpha += (g_t - g_s) eps with g = sigma / alpha, which is DDIM (Karras et al. 2022, alg. 1).

    s_churn, s_tmin, s_tmax, s_noise, churn_limit  noise before each step, as of 'heun'
    call_before_noise  the network sees the state before that noise, whose eps then moves the noised one, as
             where a scheduler's step adds it after the call
    cfg_pp   the step keeps the noise of the unconditional output: CFG++, whose scale lies in [0, 1]
    """

    name: ClassVar[str] = "euler"
    source: ClassVar[str] = "Karras et al. 2022, algorithm 1"
    call_before_noise: bool = False
    cfg_pp: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cfg_pp and self.call_before_noise:
            raise ValueError(
                "cfg_pp keeps the noise that the call saw: leave out call_before_noise"
            )

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return cfg_pp.objection(parameterisation) if self.cfg_pp else None

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for start, t in steps(points):
            s, churn = self.churn(process, start, len(points) - 1)
            if churn and self.call_before_noise:
                moved = x / start.alpha + (t.ratio - s.ratio) * slope(start, x)
                end = t.alpha * (moved + churn / s.alpha * normal(0))
                yield Update(start, {0: end}, t, span=(start, t))
            else:
                end = transfer(s, t, x, denoised)
                end = end + cfg_pp.renoised(s, t) if self.cfg_pp else end
                until = None if self.cfg_pp else t
                yield Update(s, {0: end}, t, churn=churn, span=(start, t), until=until)


def ancestral(s: Point, t: Point, eta: float) -> tuple[float, float]:
    """Ratios (g_down, g_up) of an ancestral step: g_down^2 + g_up^2 = g_t^2 (k-diffusion).

    g_up = min(g_t, eta g_t sqrt(1 - g_t^2 / g_s^2)).
    """
    if eta == 0.0:  # also upwards, from data to noise
        return t.ratio, 0.0
    kept = (t.ratio / s.ratio) ** 2
    # Of g_t^2 - g_up^2 nothing is left where g_t is far below g_s.
    down = t.ratio * math.sqrt(max((1.0 - eta) * (1.0 + eta) + eta**2 * kept, 0.0))
    return down, t.ratio * min(1.0, eta * math.sqrt(max(1.0 - kept, 0.0)))


def level(t: Point, ratio: float) -> Point:
    """t with another sigma / alpha."""
    return Point(t.t, t.alpha, t.alpha * ratio)


@dataclass(frozen=True)
class Renewed(Solver):
    """What ancestral solvers share: a step of the ODE to a lower level, then fresh noise up to the next one.

    eta      amount of fresh noise, 0 (none) to 1 (DDPM's)
    s_noise  multiplies the fresh noise
    """

    eta: float = 1.0
    s_noise: float = 1.0

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0


@dataclass(frozen=True)
class EulerAncestral(Renewed):
    """Euler to a lower level, then fresh noise up to the next one.

    eta      amount of fresh noise, 0 (none) to 1 (DDPM's)
    s_noise  multiplies the fresh noise
    cfg_pp   the step keeps the noise of the unconditional output: CFG++, whose scale lies in [0, 1]
    """

    name: ClassVar[str] = "euler_ancestral"
    source: ClassVar[str] = "k-diffusion; Song et al. 2021 (DDIM), eq. 16"
    cfg_pp: bool = False

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return cfg_pp.objection(parameterisation) if self.cfg_pp else None

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            down, up = ancestral(s, t, self.eta)
            noise = t.alpha * up * self.s_noise
            end = transfer(s, level(t, down), x, denoised)
            end = end + cfg_pp.renoised(s, level(t, down)) if self.cfg_pp else end
            yield Update(s, {0: end + noise * normal(0)}, t)
