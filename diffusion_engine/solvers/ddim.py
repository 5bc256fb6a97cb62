"""DDIM and DDPM."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan.linear import denoised, normal, unclipped_eps, x
from ..processes import GaussianProcess, Point
from . import cfg_pp
from .base import Points, Solver, Update, steps, transfer

VARIANCES = ("fixed_small", "fixed_large", "learned", "learned_range")


def posterior_std(s: Point, t: Point) -> float:
    """sigma_t sqrt(1 - e^-2h): the standard deviation of x_t given x_s and x0 (DDPM's fixed small)."""
    return t.sigma * math.sqrt(-math.expm1(-2.0 * (t.lam - s.lam))) if t.sigma > 0.0 else 0.0


def forward_std(s: Point, t: Point) -> float:
    """sqrt(sigma_s^2 - (alpha_s / alpha_t)^2 sigma_t^2): that of x_s given x_t (DDPM's fixed large)."""
    return math.sqrt(max(s.sigma**2 - (s.alpha / t.alpha * t.sigma) ** 2, 0.0))


def below(t: Point, noise: float) -> Point:
    """t without so much noise: sqrt(sigma_t^2 - noise^2) in place of sigma_t."""
    return Point(t.t, t.alpha, math.sqrt(max(t.sigma**2 - noise**2, 0.0)))


def landing(process: GaussianProcess, t: Point, noise: float) -> Point:
    """The process's own point with the level of `below`, from which noise leads up to t."""
    if noise == 0.0:
        return t
    ratio = below(t, noise).ratio
    return process.at_ratio(ratio) if ratio > 0.0 else process.clean


def toward(s: Point, t: Point, noise: float) -> dict:
    """x_t = alpha_t x0 + sqrt(sigma_t^2 - noise^2) eps: the deterministic part of a DDIM step."""
    return {0: transfer(s, below(t, noise), x, denoised)}


@dataclass(frozen=True)
class DDIM(Solver):
    """x_t = alpha_t x0 + sqrt(sigma_t^2 - c^2) eps + c z, c = eta sigma_t sqrt(1 - e^-2h).

    eta          0 is deterministic, 1 is DDPM with the small variance (Song et al. 2021, eq. 12 and 16)
    clipped_eps  eps follows from the clipped `denoised` (GLIDE's use_clipped_model_output); False keeps
                 the network's own. The same without a clip
    cfg_pp       eps is that of the unconditional output: CFG++, whose scale lies in [0, 1]
    """

    name: ClassVar[str] = "ddim"
    source: ClassVar[str] = "Song et al. 2021 (DDIM), eq. 12"
    differs: ClassVar[str] = (
        "a clipped estimate has its own eps; the paper's code does not clip, and diffusers' keeps the "
        "network's: clipped_eps=False"
    )
    eta: float = 0.0
    clipped_eps: bool = True
    cfg_pp: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta={self.eta:g}: DDIM's eta lies between 0 and 1")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return cfg_pp.objection(parameterisation) if self.cfg_pp else None

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            c = self.eta * posterior_std(s, t) if self.eta else 0.0
            lower = below(t, c)
            if self.cfg_pp:
                new = transfer(s, lower, x, denoised) + cfg_pp.renoised(s, lower)
            elif self.clipped_eps:
                new = transfer(s, lower, x, denoised)
            else:
                new = t.alpha * denoised + lower.sigma * unclipped_eps
            until = None if self.cfg_pp else landing(process, t, c)
            yield Update(s, {0: new + c * normal(0)}, t, until=until)


@dataclass(frozen=True)
class DDPM(Solver):
    """Ancestral sampling: the posterior mean of x_t given x_s and x0, plus noise.

    variance  "fixed_small", the posterior's own, or "fixed_large", that of the forward step
              (Ho et al. 2020, section 3.2); "learned", the network's log variance, or "learned_range",
              its place between the two on a log scale (Nichol & Dhariwal 2021, eq. 15), both of its second
              block of channels, of the conditional branch
    last_noise  noise also goes into the last, clean x, where "fixed_small" has none
    """

    name: ClassVar[str] = "ddpm"
    source: ClassVar[str] = "Ho et al. 2020, algorithm 2"
    differs: ClassVar[str] = (
        "respaced timesteps have the variances of the respaced chain; a classifier changes eps, as for every "
        "solver, where the published sampler adds the variance times its gradient to the mean"
    )
    variance: str = "fixed_small"
    last_noise: bool = False

    def __post_init__(self) -> None:
        if self.variance not in VARIANCES:
            raise ValueError(f"variance={self.variance!r}: DDPM takes {', '.join(VARIANCES)}")

    @property
    def stochastic(self) -> bool:
        return True

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            small, large = posterior_std(s, t), forward_std(s, t)
            new = toward(s, t, small)
            if t.sigma == 0.0 and not self.last_noise:
                yield Update(s, new, t)
                continue
            noise = {"fixed_small": small, "fixed_large": large}.get(self.variance, 1.0)
            new[0] = new[0] + noise * normal(0)
            yield Update(s, new, t, learned=self._exponent(small, large))

    def _exponent(self, small: float, large: float) -> tuple[float, float, int] | None:
        """log std = v0 + v1 out of channel block 1."""
        if self.variance == "learned":
            return 0.0, 0.5, 1
        if self.variance == "learned_range":  # the output runs from -1, small, to 1, large
            small, large = math.log(max(small, 1e-10)), math.log(large)
            return 0.5 * (small + large), 0.5 * (large - small), 1
        return None

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        offered = parameterisation.variance
        if self.variance in ("learned", "learned_range") and offered != self.variance:
            has = "none" if offered is None else f"a {offered!r} one"
            return (
                f"variance={self.variance!r} is read from the network, which has {has}; say so with "
                "ScoreNetwork(variance=...), or use 'fixed_small'"
            )
        return None
