"""The laws of continuous time in closed form: VP, sub-VP, VE, EDM's and flow matching."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .gaussian import Array, GaussianProcess, Point, ends_at_1


@dataclass(frozen=True, kw_only=True)
class VP(GaussianProcess):
    """Variance preserving SDE with beta(t) = beta_min + t (beta_max - beta_min).

    log alpha = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2 (Song et al. 2021, eq. 33).
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.beta_min >= 0.0 and self.beta_max >= 0.0 and self.beta_min + self.beta_max):
            raise ValueError(
                f"{type(self).__name__} has beta_min={self.beta_min:g} and beta_max={self.beta_max:g}: rates "
                "of noise are 0 or above, and not both 0"
            )
        ends_at_1(self, "the rate of noise is beta_max")

    def log_alpha(self, t: Array | float) -> Array:
        t = np.asarray(t, np.float64)
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def alpha(self, t: Array | float) -> Array:
        return np.exp(self.log_alpha(t))

    def sigma(self, t: Array | float) -> Array:
        return np.sqrt(-np.expm1(2.0 * self.log_alpha(t)))

    def beta(self, t: Array | float) -> Array:
        """The rate of noise."""
        return self.beta_min + np.asarray(t, np.float64) * (self.beta_max - self.beta_min)

    def drift(self, t: Array | float) -> Array:
        return -0.5 * self.beta(t)

    def diffusion(self, t: Array | float) -> Array:
        return self.beta(t)

    def t_of_log_alpha(self, log_alpha: Array) -> Array:
        slope = self.beta_max - self.beta_min
        return (
            -4.0 * log_alpha / (np.sqrt(self.beta_min**2 - 4.0 * slope * log_alpha) + self.beta_min)
        )

    def t_of_lam(self, lam: Array | float) -> Array:
        return self.t_of_log_alpha(-0.5 * np.logaddexp(0.0, -2.0 * np.asarray(lam, np.float64)))

    def prior_std(self, first: Point) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class SubVP(VP):
    """Sub-VP SDE: alpha as VP, standard deviation 1 - alpha^2 (Song et al. 2021, eq. 29)."""

    def sigma(self, t: Array | float) -> Array:
        return -np.expm1(2.0 * self.log_alpha(t))

    def diffusion(self, t: Array | float) -> Array:
        return -np.expm1(4.0 * self.log_alpha(t)) * self.beta(t)

    def t_of_lam(self, lam: Array | float) -> Array:
        # alpha = r (1 - alpha^2) with r = e^lam; the root in a form without cancellation.
        r = np.exp(np.asarray(lam, np.float64))
        return self.t_of_log_alpha(np.log(2.0 * r / (1.0 + np.hypot(1.0, 2.0 * r))))


@dataclass(frozen=True, kw_only=True)
class VE(GaussianProcess):
    """Variance exploding SDE: alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t."""

    default_grid: ClassVar[str] = "karras"
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    t_min: float = 1e-5
    t_max: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                f"VE has sigma_min={self.sigma_min:g} and sigma_max={self.sigma_max:g}: give 0 < sigma_min < "
                "sigma_max"
            )
        ends_at_1(self, "sigma is sigma_max")

    def alpha(self, t: Array | float) -> Array:
        return np.ones_like(np.asarray(t, np.float64))

    def sigma(self, t: Array | float) -> Array:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** np.asarray(t, np.float64)

    def drift(self, t: Array | float) -> Array:
        return np.zeros_like(np.asarray(t, np.float64))

    def diffusion(self, t: Array | float) -> Array:
        return 2.0 * math.log(self.sigma_max / self.sigma_min) * self.sigma(t) ** 2

    def t_of_lam(self, lam: Array | float) -> Array:
        log_min = math.log(self.sigma_min)
        return (-np.asarray(lam, np.float64) - log_min) / (math.log(self.sigma_max) - log_min)

    @property
    def clean(self) -> Point:
        return Point(-1.0, 1.0, 0.0)  # t = 0 still has sigma_min


@dataclass(frozen=True, kw_only=True)
class EDM(GaussianProcess):
    """alpha = 1, sigma = t (Karras et al. 2022)."""

    default_grid: ClassVar[str] = "karras"
    t_min: float = 0.002
    t_max: float = 80.0

    def alpha(self, t: Array | float) -> Array:
        return np.ones_like(np.asarray(t, np.float64))

    def sigma(self, t: Array | float) -> Array:
        return np.asarray(t, np.float64)

    def drift(self, t: Array | float) -> Array:
        return np.zeros_like(np.asarray(t, np.float64))

    def diffusion(self, t: Array | float) -> Array:
        return 2.0 * np.asarray(t, np.float64)

    def t_of_lam(self, lam: Array | float) -> Array:
        return np.exp(-np.asarray(lam, np.float64))

    @property
    def range(self) -> tuple[float, float]:
        return 0.0, math.inf


@dataclass(frozen=True, kw_only=True)
class FlowMatching(GaussianProcess):
    """Straight paths alpha = 1 - t, sigma = t (Lipman et al. 2023; Liu et al. 2023)."""

    default_grid: ClassVar[str] = "uniform"
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.t_max > 1.0:
            raise ValueError(f"t_max={self.t_max:g}: flow matching ends at t=1, where alpha is 0")

    def alpha(self, t: Array | float) -> Array:
        return 1.0 - np.asarray(t, np.float64)

    def sigma(self, t: Array | float) -> Array:
        return np.asarray(t, np.float64)

    def drift(self, t: Array | float) -> Array:
        return -1.0 / (1.0 - np.asarray(t, np.float64))

    def diffusion(self, t: Array | float) -> Array:
        t = np.asarray(t, np.float64)
        return 2.0 * t / (1.0 - t)

    def t_of_lam(self, lam: Array | float) -> Array:
        return 1.0 / (1.0 + np.exp(np.asarray(lam, np.float64)))
