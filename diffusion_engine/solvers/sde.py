"""One-step predictors for the reverse SDE dx = [f - G^2 score] dt + G dw (Song et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np

from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, normal, x
from ..processes import VE, VP, GaussianProcess, Point, SubVP
from ..processes.grids import Grid
from .base import Points, Solver, Update, finite_start, off_time, score_of, steps, transfer


@dataclass(frozen=True)
class Predictor(Solver):
    """What the predictors share: the length of their steps, and how a run ends.

    step     "grid" goes the true distance to the next time, and to clean data by `denoised`; "1/N" is
             as published: N steps of 1/N from N uniform times, the last one too (VP, sub-VP, VE)
    denoise  the last step returns its mean; False leaves its noise in
    """

    exact: ClassVar[bool] = False
    keeps_noise: ClassVar[bool] = False
    differs: ClassVar[str] = (
        "the code's step is 1/N where its times lie (T - eps)/(N - 1) apart: step='1/N'; "
        "its table index is rounded, not truncated"
    )
    step: str = "grid"
    denoise: bool = True

    def __post_init__(self) -> None:
        if self.step not in ("grid", "1/N"):
            raise ValueError(f"step={self.step!r}: choose 'grid' or '1/N'")

    @property
    def stochastic(self) -> bool:
        return True

    def default_grid(self, process: GaussianProcess) -> str | Grid | None:
        return "uniform" if isinstance(process, (VP, VE)) else None

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        process = parameterisation.process
        if self.step == "1/N":
            return published(process, points)
        by_time = isinstance(process, SubVP) or isinstance(self, EulerMaruyama)
        return finite_start(process, points) or (off_time(process, points) if by_time else None)

    def move(self, process: GaussianProcess, s: Point, t: Point, n: int) -> tuple[Linear, float]:
        """The mean of a step and the standard deviation of its noise; n is N where steps are 1/N, else 0."""
        raise NotImplementedError

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        n = len(points) - 1 if self.step == "1/N" else 0
        for s, t in steps(points):
            if t.sigma == 0.0 and not n:
                yield Update(s, {0: transfer(s, t, x, denoised)}, t)
                continue
            mean, std = self.move(process, s, t, n)
            ends = t is points[-1] and self.denoise
            yield Update(s, {0: mean + (0.0 if ends else std) * normal(0)}, t)


def published(process: GaussianProcess, points: Points) -> str | None:
    """The objection of steps of 1/N."""
    times = [p.t for p in points if p.sigma > 0.0]
    gaps = [a - b for a, b in pairwise(times)]
    if not isinstance(process, (VP, VE)):
        return f"step='1/N' is published for VP, sub-VP and VE, not {type(process).__name__}; use 'grid'"
    if times[0] != process.t_max or not np.allclose(gaps, gaps[:1] * len(gaps), rtol=1e-6, atol=0):
        return f"step='1/N' needs uniform times from t={process.t_max:g}; use grid='uniform' or step='grid'"
    if points[-1].sigma > 0.0:
        return "step='1/N' takes its last step to clean data; use end='zero' or step='grid'"
    return None


@dataclass(frozen=True)
class EulerMaruyama(Predictor):
    """x' = x - d (f - G^2 score) + G sqrt(d) z for a step of d down in time.

    noise  False is Euler's method for the probability flow ODE, with G^2 / 2 in place of G^2
    """

    name: ClassVar[str] = "euler_maruyama"
    source: ClassVar[str] = "Song et al. 2021 (score SDE), eq. 6 and 13"
    noise: bool = True

    @property
    def stochastic(self) -> bool:
        return self.noise

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        process = parameterisation.process
        if type(process).drift is GaussianProcess.drift:
            return f"{type(process).__name__} says no drift(t); use 'reverse_diffusion', 'ddim' or 'ddpm'"
        return super().objection(parameterisation, points)

    def move(self, process: GaussianProcess, s: Point, t: Point, n: int) -> tuple[Linear, float]:
        d = 1.0 / n if n else s.t - t.t
        f, g2 = float(process.drift(s.t)), float(process.diffusion(s.t))
        weight = g2 if self.noise else 0.5 * g2
        mean = (1.0 - d * f) * x + d * weight * score_of(s)
        return mean, math.sqrt(g2 * d) if self.noise else 0.0


class Link(NamedTuple):
    """A step of the forward chain, x_s = scale x_t + sqrt(variance) z; sigma is the level it ends on."""

    scale: float
    variance: float
    sigma: float


def link(process: GaussianProcess, s: Point, t: Point, n: int) -> Link:
    """The link from t to s: the exact transition, or with n that of the published table of n levels.

    Sub-VP, which has no chain, takes a step of Euler and Maruyama.
    """
    if isinstance(process, SubVP):
        d = 1.0 / n if n else s.t - t.t
        return Link(1.0 + d * float(process.drift(s.t)), d * float(process.diffusion(s.t)), s.sigma)
    if not n:
        scale = s.alpha / t.alpha
        return Link(scale, max(s.sigma**2 - (scale * t.sigma) ** 2, 0.0), s.sigma)
    k, last = round(s.t * (n - 1) / process.t_max), max(n - 1, 1)
    if isinstance(process, VE):
        high = float(process.sigma(k / last))
        low = float(process.sigma((k - 1) / last)) if k else 0.0
        return Link(1.0, high**2 - low**2, high)
    assert isinstance(process, VP)
    beta = float(process.beta(k / last)) / n
    return Link(math.sqrt(1.0 - beta), beta, s.sigma)


def short_chain(process: GaussianProcess, points: Points) -> str | None:
    """The objection of a published chain whose beta reaches 1."""
    n = len(points) - 1
    if isinstance(process, VP) and not isinstance(process, SubVP) and n <= process.beta_max:
        return (
            f"step='1/N' makes beta / N reach 1 in {n} steps; take more than {process.beta_max:g}"
        )
    return None


@dataclass(frozen=True)
class ReverseDiffusion(Predictor):
    """x' = (2 - r) x + v score + sqrt(v) z, the forward chain x_s = r x_t + sqrt(v) z turned round.

    noise  False is the probability flow: v / 2 in place of v before the score
    """

    name: ClassVar[str] = "reverse_diffusion"
    source: ClassVar[str] = "Song et al. 2021 (score SDE), appendix E"
    noise: bool = True

    @property
    def stochastic(self) -> bool:
        return self.noise

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        found = super().objection(parameterisation, points)
        return found or (
            short_chain(parameterisation.process, points) if self.step == "1/N" else None
        )

    def move(self, process: GaussianProcess, s: Point, t: Point, n: int) -> tuple[Linear, float]:
        scale, variance, _ = link(process, s, t, n)
        weight = variance if self.noise else 0.5 * variance
        mean = (2.0 - scale) * x + weight * score_of(s)
        return mean, math.sqrt(variance) if self.noise else 0.0


@dataclass(frozen=True)
class Ancestral(Predictor):
    """x' = (x + v score) / r + noise: the posterior of the chain x_s = r x_t + sqrt(v) z.

    The noise is sqrt(v) (DDPM's large variance), and the posterior's own where r = 1 (SMLD).
    """

    name: ClassVar[str] = "ancestral"
    source: ClassVar[str] = "Song et al. 2021 (score SDE), appendix F; Ho et al. 2020"

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        if isinstance(parameterisation.process, SubVP):
            return "sub-VP is no chain whose ancestors could be drawn; use 'reverse_diffusion' or 'ddpm'"
        found = super().objection(parameterisation, points)
        return found or (
            short_chain(parameterisation.process, points) if self.step == "1/N" else None
        )

    def move(self, process: GaussianProcess, s: Point, t: Point, n: int) -> tuple[Linear, float]:
        scale, variance, sigma = link(process, s, t, n)
        mean = (x + variance * score_of(s)) / scale
        kept = max(1.0 - variance / sigma**2, 0.0) if scale == 1.0 else 1.0
        return mean, math.sqrt(variance * kept)


@dataclass(frozen=True)
class DPDMSDE(EulerMaruyama):
    """Euler and Maruyama in sigma, x' = x + 2 d (x - x0) / sigma + sqrt(2 |d| sigma) z, then `denoised`.

    DPDM's stochastic "ddim" on EDM's process and grid. Its deterministic one is 'euler' there, and its
    "edm" is 'heun' with churn_limit=1. Its guidance strength w is guidance=1 + w.
    """

    name: ClassVar[str] = "dpdm_sde"
    source: ClassVar[str] = "Dockhorn et al. 2023 (DPDM), appendix"
    differs: ClassVar[str] = ""

    def default_grid(self, process: GaussianProcess) -> str | Grid | None:
        return None
