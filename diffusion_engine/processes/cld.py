"""Critically-damped Langevin diffusion: noise enters through a velocity (Dockhorn et al. 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from .gaussian import Array, GaussianProcess, Point


class Covariance(NamedTuple):
    """A covariance of (x, v), the same for every element."""

    xx: Array
    xv: Array
    vv: Array

    @classmethod
    def of(cls, matrix: Array) -> Covariance:
        """That of a 2 x 2 matrix."""
        return cls(matrix[0, 0], matrix[0, 1], matrix[1, 1])

    @property
    def matrix(self) -> Array:
        """[2, 2], of numbers alone."""
        return np.array([[self.xx, self.xv], [self.xv, self.vv]], np.float64)

    @property
    def cholesky(self) -> tuple[Array, Array, Array]:
        """(L11, L21, L22), where x takes the first normal alone."""
        l11 = np.sqrt(self.xx)
        l21 = np.divide(self.xv, l11, out=np.zeros(np.shape(l11)), where=l11 > 0.0)
        return l11, l21, np.sqrt(self.vv - l21**2)


def gathered(y: Array | float) -> Covariance:
    """What (x, v / sqrt(M)) gather of noise over y: 1 - e^-y (1 + y + y^2 / 2), e^-y y^2 / 2 and
    1 - e^-y (1 - y + y^2 / 2). The first is a series below 1, where the difference loses digits."""
    y = np.asarray(y, np.float64)
    e = np.exp(-y)
    series = e * sum(y**k / math.factorial(k) for k in range(20, 2, -1))
    xx = np.where(y < 1.0, series, 1.0 - e * (1.0 + y + 0.5 * y**2))
    return Covariance(xx, 0.5 * e * y**2, e * (y - 0.5 * y**2) - np.expm1(-y))


@dataclass(frozen=True, kw_only=True)
class CLD(GaussianProcess):
    """dx = v / M beta dt, dv = -(x + Gamma v / M) beta dt + sqrt(2 Gamma beta) dw with Gamma = 2 sqrt(M).

    Noise enters v alone; v starts from N(0, gamma M) and the run's end is x ~ N(0, I), v ~ N(0, M I)
    (Dockhorn et al. 2022). Everything depends on t through y = 2 B(t) / sqrt(M), B being the
    integral of beta. `alpha` and `sigma` are those of x alone.

    t_min, t_max   the times of a run; its final denoising goes from t_min to 0
    mass           M
    gamma          variance of the first v in units of M, above 0
    beta0, beta1   beta(t) = beta0 + beta1 t
    numerical_eps  added to the variances of x and v; networks are trained with it
    Raises ValueError where a number makes no diffusion.
    """

    default_grid: ClassVar[str] = "quadratic_striding"
    parts: ClassVar[int] = 2
    t_min: float = 1e-3
    t_max: float = 1.0
    mass: float = 0.25
    gamma: float = 0.04
    beta0: float = 4.0
    beta1: float = 0.0
    numerical_eps: float = 1e-9

    def __post_init__(self) -> None:
        self._settle()
        if not (0.0 < self.mass < math.inf and 0.0 < self.gamma <= 2.0):
            raise ValueError(
                f"CLD has a finite mass > 0 and 0 < gamma <= 2; got mass={self.mass:g}, gamma={self.gamma:g}"
            )
        if not (0.0 <= self.numerical_eps < math.inf and 0.0 < self.t_min < self.t_max < math.inf):
            raise ValueError(
                f"CLD has a finite numerical_eps >= 0 and times 0 < t_min < t_max; got numerical_eps="
                f"{self.numerical_eps:g}, t_min={self.t_min:g}, t_max={self.t_max:g}"
            )
        ends = np.array([self.beta0, self.beta(self.t_max)])
        if not (np.isfinite(ends) & (ends >= 0.0)).all() or not ends.any():
            raise ValueError(
                f"beta(t) = {self.beta0:g} + {self.beta1:g} t is no number of 0 or above from t=0 to "
                f"{self.t_max:g}; give a beta that is positive in between"
            )

    @property
    def friction(self) -> float:
        """Gamma = 2 sqrt(M), critical damping."""
        return 2.0 * math.sqrt(self.mass)

    def beta(self, t: Array | float) -> Array:
        return self.beta0 + self.beta1 * np.asarray(t, np.float64)

    def integral(self, t: Array | float) -> Array:
        """B(t), the integral of beta from 0."""
        t = np.asarray(t, np.float64)
        return self.beta0 * t + 0.5 * self.beta1 * t**2

    def y(self, t: Array | float) -> Array:
        """2 B(t) / sqrt(M)."""
        return self.integral(t) * (2.0 / math.sqrt(self.mass))

    def mean(self, t: Array | float) -> tuple[Array, Array]:
        """The weights of x0 in the means of x and v; v starts at 0 on average."""
        y = self.y(t)
        decay = np.exp(-0.5 * y)
        return decay * (1.0 + 0.5 * y), -0.5 * math.sqrt(self.mass) * decay * y

    def covariance(self, t: Array | float) -> Covariance:
        """That of (x, v) given x0, the first v being averaged over (hybrid score matching)."""
        y = self.y(t)
        e, s = np.exp(-y), math.sqrt(self.mass)
        noise = gathered(y)
        return Covariance(
            noise.xx + 0.25 * self.gamma * e * y**2 + self.numerical_eps,
            s * (noise.xv + 0.5 * self.gamma * e * (y - 0.5 * y**2)),
            self.mass * (noise.vv + self.gamma * e * (1.0 - 0.5 * y) ** 2) + self.numerical_eps,
        )

    def alpha(self, t: Array | float) -> Array:
        return self.mean(t)[0]

    def sigma(self, t: Array | float) -> Array:
        return np.sqrt(self.covariance(t).xx)

    def t_of_lam(self, lam: Array | float) -> Array:
        lam = np.asarray(lam, np.float64)
        low, high = np.zeros_like(lam), np.full_like(lam, self.t_max)
        for _ in range(64):  # lam falls in t and has no inverse in closed form
            middle = 0.5 * (low + high)
            above = self.lam(middle) > lam
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return 0.5 * (low + high)

    def at_ratio(self, g: float) -> Point:
        at = super().at_ratio(g)
        if not math.isclose(at.ratio, self.at(at.t).ratio, rel_tol=1e-9):
            raise ValueError(
                f"sigma / alpha = {g:g} of x is beyond that of CLD at t={at.t:g}, and the velocity has its "
                "law from the time alone; give a level within its times"
            )
        return at

    def prior_std(self, first: Point) -> float:
        return 1.0
