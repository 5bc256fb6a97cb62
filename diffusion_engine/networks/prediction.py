"""What a network predicts: x0 = p x + q o for its output o, in float64 on the host.

x = alpha x0 + sigma eps is the state in the process's natural coordinates. The rules also take the
tensors of levels.Levels, for what differentiates them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..processes import CLD, VP, Point


def _alpha(at: Point, name: str) -> float:
    if isinstance(at, Point) and at.alpha == 0.0:
        raise ValueError(
            f"a network that predicts {name} says nothing about x0 at t={at.t:g}, where alpha is 0; "
            f"start below that time, or use a network that predicts v, x0 or flow"
        )
    return at.alpha


def _sqrt(value: Any) -> Any:
    return math.sqrt(value) if isinstance(value, float) else value**0.5


def _log(value: Any) -> Any:
    return math.log(value) if isinstance(value, float) else value.log()


def _hypot(a: Any, b: Any) -> Any:
    return math.hypot(a, b) if isinstance(a, float) else (a * a + b * b) ** 0.5


def eps(at: Point) -> tuple[float, float]:
    """o = eps."""
    alpha = _alpha(at, "eps")
    return 1.0 / alpha, -at.sigma / alpha


def x0(at: Point) -> tuple[float, float]:
    """o = x0."""
    return 0.0, 1.0


def v(at: Point) -> tuple[float, float]:
    """o = alpha eps - sigma x0 (Salimans & Ho 2022)."""
    square = at.alpha**2 + at.sigma**2
    return at.alpha / square, -at.sigma / square


def score(at: Point) -> tuple[float, float]:
    """o = grad log p = -eps / sigma."""
    alpha = _alpha(at, "score")
    return 1.0 / alpha, at.sigma**2 / alpha


def flow(at: Point) -> tuple[float, float]:
    """o = eps - x0, the velocity of straight paths."""
    total = at.alpha + at.sigma
    return 1.0 / total, -at.sigma / total


@dataclass(frozen=True)
class F:
    """EDM's inner network: x0 = c_skip x / alpha + c_out o (Karras et al. 2022, table 1).

    sigma_data  the data's standard deviation
    """

    sigma_data: float = 0.5

    def __call__(self, at: Point) -> tuple[float, float]:
        g, sd = at.sigma / _alpha(at, "F"), self.sigma_data
        square = g * g + sd * sd
        return sd * sd / square / at.alpha, g * sd / _sqrt(square)

    def c_in(self, at: Point) -> float:
        """Input scale of the state x: 1 / (alpha sqrt(g^2 + sigma_data^2))."""
        return 1.0 / _sqrt(at.sigma**2 + (at.alpha * self.sigma_data) ** 2)

    def c_noise(self, at: Point) -> float:
        """The label log(g) / 4."""
        return _log(at.ratio) / 4.0


@dataclass(frozen=True)
class Consistency:
    """A consistency model's inner network, with f(x, sigma_min) = x (Song et al. 2023, appendix C).

    sigma_data  the data's standard deviation
    """

    sigma_data: float = 0.5
    sigma_min: float = 0.002

    def __call__(self, at: Point) -> tuple[float, float]:
        g, sd = at.sigma / _alpha(at, "a consistency function"), self.sigma_data
        gap = g - self.sigma_min
        return sd * sd / (gap * gap + sd * sd) / at.alpha, gap * sd / _hypot(g, sd)

    def c_in(self, at: Point) -> float:
        """Input scale of the state; sigma_min is not in it."""
        return F(self.sigma_data).c_in(at)

    def c_noise(self, at: Point) -> float:
        """The label 250 log(g + 1e-44)."""
        return 250.0 * _log(at.ratio + 1e-44)


@dataclass(frozen=True)
class Trig:
    """TrigFlow's network, o = d(x_t) / dt / sigma_data: x0 = cos x - sin sigma_data o of the state
    x_t = cos x0 + sin sigma_data eps, told the angle t (Lu & Song 2025, eq. 3).

    sigma_data  the data's standard deviation
    """

    sigma_data: float = 0.5

    def __call__(self, at: Point) -> tuple[float, float]:
        square = (at.alpha * self.sigma_data) ** 2 + at.sigma**2
        return at.alpha * self.sigma_data**2 / square, -at.sigma * self.sigma_data / _sqrt(square)

    def c_in(self, at: Point) -> float:
        """Input scale of the state, 1 / sigma_data on TrigFlow."""
        return 1.0 / _sqrt((at.alpha * self.sigma_data) ** 2 + at.sigma**2)

    def c_noise(self, at: Point) -> float:
        """The angle."""
        return math.atan2(at.sigma / self.sigma_data, at.alpha)


@dataclass(frozen=True)
class VEScale:
    """The denoiser "vesde": x0 = x / alpha + g o, told log(g / 2) (Karras et al. 2022, table 1)."""

    def __call__(self, at: Point) -> tuple[float, float]:
        return 1.0 / _alpha(at, "vesde's F"), at.ratio

    def c_in(self, at: Point) -> float:
        return 1.0 / _alpha(at, "vesde's F")

    def c_noise(self, at: Point) -> float:
        return _log(at.ratio / 2.0)


@dataclass(frozen=True)
class VPScale:
    """The denoiser "vpsde": x0 = x / alpha - g o, told the time of g on VP, times `last` (ibid.).

    beta_min, beta_max  of that VP
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    last: float = 999.0

    def __call__(self, at: Point) -> tuple[float, float]:
        return 1.0 / _alpha(at, "vpsde's F"), -at.ratio

    def c_in(self, at: Point) -> float:
        return 1.0 / _hypot(at.alpha, at.sigma)

    def c_noise(self, at: Point) -> float:
        if isinstance(at, Point):
            vp = VP(beta_min=self.beta_min, beta_max=self.beta_max)
            return self.last * float(vp.t_of_lam(at.lam))
        square = (at.ratio**2).log1p()
        slope = self.beta_max - self.beta_min
        root = (self.beta_min**2 + 2.0 * slope * square) ** 0.5
        return self.last * 2.0 * square / (root + self.beta_min)


@dataclass(frozen=True)
class MinusV:
    """DPDM's "v": x0 = x / (alpha (1 + g^2)) + g / sqrt(1 + g^2) o, o being minus v, told an angle."""

    def __call__(self, at: Point) -> tuple[float, float]:
        square = at.alpha**2 + at.sigma**2
        return at.alpha / square, at.sigma / _sqrt(square)

    def c_in(self, at: Point) -> float:
        return 1.0 / _hypot(at.alpha, at.sigma)

    def c_noise(self, at: Point) -> float:
        """(2 / pi) arccos(1 / sqrt(1 + g^2))."""
        if isinstance(at, Point):
            return math.atan2(at.sigma, at.alpha) * 2.0 / math.pi
        return at.sigma.atan2(at.alpha) * 2.0 / math.pi


# DPDM's denoisers (Dockhorn et al. 2023), by its names: prediction=DPDM["v"], label=DPDM["v"].c_noise.
DPDM = {
    "edm": F(sigma_data=math.sqrt(1.0 / 3.0)),
    "v": MinusV(),
    "vesde": VEScale(),
    "vpsde": VPScale(),
}


@dataclass(frozen=True)
class Velocity:
    """CLD's score of the velocity: s_v = -ell o, or -v / Svv - ell o (Dockhorn et al. 2022).

    Svv is v's variance given x0, and 1 / ell its standard deviation given x0 and x.

    mixed   whether the network predicts what is left beside -v / Svv, as all released networks do
    powers  Jacobian products that the network returns behind o (see `linearized`): D v, D o, D^2 v,
            D^2 o, ... with D = do/dv
    """

    mixed: bool = False
    powers: int = 0

    @property
    def outputs(self) -> int:
        """How many channel blocks the network returns."""
        return 1 + 2 * self.powers

    def score(self, process: CLD, t: float) -> tuple[float, float]:
        """The weights of v and o in s_v."""
        covariance = process.covariance(t)
        base = -1.0 / float(covariance.vv) if self.mixed else 0.0
        return base, -1.0 / float(covariance.cholesky[2])

    def weights(self, process: CLD, t: float) -> tuple[tuple[float, float], float]:
        """((p_x, p_v), q) with x0 = p_x x + p_v v + q o: the x0 whose kernel has this score."""
        l11, l21, l22 = map(float, process.covariance(t).cholesky)
        mean_x, mean_v = map(float, process.mean(t))
        on_v, on_o = self.score(process, t)
        slope = l21 / l11
        size = mean_v - slope * mean_x
        return (-slope / size, (1.0 + l22**2 * on_v) / size), l22**2 * on_o / size


# (p, q) with x0 = p x + q o; p has a number for every slot that the network reads.
Prediction = Callable[[Point], tuple[float | tuple[float, ...], float]]

# What `prediction` may be by name.
PREDICTIONS: dict[str, Prediction | Velocity] = {
    "eps": eps,
    "x0": x0,
    "v": v,
    "score": score,
    "flow": flow,
    "F": F(),
    "velocity": Velocity(),
    "mixed_velocity": Velocity(mixed=True),
}
