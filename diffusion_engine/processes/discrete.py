"""Discrete beta tables: t is the training timestep 0 ... N-1, float64 on the host."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from .. import checks
from .gaussian import Array, GaussianProcess, Point

FLOOR = 2.0**-24


@dataclass(frozen=True, kw_only=True)
class Discrete(GaussianProcess):
    """Variance preserving chain given by its table of alpha_bar = alpha^2 (Ho et al. 2020).

    alpha_bar  the cumulative products, decreasing, alpha_bar[0] belonging to timestep 0.
    Between timesteps lam is interpolated linearly; timestep -1 is clean data. A last alpha_bar of 0 counts as
    2^-24 beside its timestep and in grids of sigma / alpha, as in diffusers.
    """

    default_grid: ClassVar[str] = "trailing"
    alpha_bar: tuple[float, ...] = ()
    t_min: float = 0.0
    t_max: float = -1.0

    def __post_init__(self) -> None:
        try:
            table = np.asarray(self.alpha_bar, np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"alpha_bar={checks.said(self.alpha_bar)}: a row of numbers"
            ) from error
        if table.ndim != 1 or len(table) < 1:
            raise ValueError(f"alpha_bar is a row of 1 or more numbers, got shape {table.shape}")
        if not (np.all(np.diff(table) < 0) and table[0] < 1 and table[-1] >= 0):
            raise ValueError("alpha_bar has to fall strictly from below 1 to 0 or above")
        if self.t_max not in (-1.0, len(table) - 1.0):
            raise ValueError(
                f"t_max={checks.said(self.t_max)}: a table of {len(table)} ends at t={len(table) - 1}; "
                "leave it out"
            )
        object.__setattr__(self, "alpha_bar", tuple(table.tolist()))
        object.__setattr__(self, "t_max", float(len(table) - 1))

    @classmethod
    def from_betas(cls, betas: Array) -> Discrete:
        """The process of a table of betas, alpha_bar = cumprod(1 - beta)."""
        return cls(alpha_bar=tuple(np.cumprod(1.0 - np.asarray(betas, np.float64)).tolist()))

    @classmethod
    def linear(cls, n: int = 1000, start: float = 1e-4, end: float = 0.02) -> Discrete:
        """DDPM's table of n betas, linear from start to end."""
        return cls.from_betas(np.linspace(start, end, _whole(n)))

    @classmethod
    def scaled_linear(cls, n: int = 1000, start: float = 0.00085, end: float = 0.012) -> Discrete:
        """Latent diffusion's table of n betas, linear in sqrt(beta) from start to end; the defaults are
        Stable Diffusion's."""
        return cls.from_betas(np.linspace(math.sqrt(start), math.sqrt(end), _whole(n)) ** 2)

    @classmethod
    def cosine(cls, n: int = 1000, offset: float = 0.008, beta_max: float = 0.999) -> Discrete:
        """Improved DDPM's table of n betas (Nichol & Dhariwal 2021, eq. 17, s = offset), at most beta_max."""
        n = _whole(n)
        f = np.cos((np.arange(n + 1) / n + offset) / (1.0 + offset) * np.pi / 2.0) ** 2
        return cls.from_betas(np.minimum(1.0 - f[1:] / f[:-1], beta_max))

    @classmethod
    def few(
        cls, n: int, beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3
    ) -> Discrete:
        """The chain of n large steps of denoising diffusion GANs (Xiao et al. 2022).

        The times of VP are t_min + k (1 - t_min) / n; the chain starts anew from the first, k = 0:
        alpha_bar[i] = abar(t_{i+1}) / abar(t_0), abar = exp(-t^2 (beta_max - beta_min) / 2 - t beta_min).
        """
        n = _whole(n)
        t = t_min + (1.0 - t_min) * np.arange(n + 1) / n
        log_bar = -0.5 * t**2 * (beta_max - beta_min) - t * beta_min
        return cls(alpha_bar=tuple(np.exp(log_bar[1:] - log_bar[0]).tolist()))

    def zero_terminal_snr(self) -> Discrete:
        """The table rescaled so that its last alpha_bar is 0 (Lin et al. 2024, algorithm 1)."""
        q = np.sqrt(self.alpha_bar)
        q = (q - q[-1]) * q[0] / (q[0] - q[-1])
        return Discrete(alpha_bar=tuple((q**2).tolist()))

    @cached_property
    def _lam(self) -> Array:
        table = np.asarray(self.alpha_bar)
        with np.errstate(divide="ignore"):
            return 0.5 * (np.log(table) - np.log1p(-table))

    @cached_property
    def _finite(self) -> Array:
        """lam, that of a terminal alpha_bar of 0 being finite, and below the one before."""
        if self.alpha_bar[-1] > 0.0:
            return self._lam
        floor = min(FLOOR, *(0.5 * bar for bar in self.alpha_bar[-2:-1]), 0.5)
        return np.append(self._lam[:-1], 0.5 * (math.log(floor) - math.log1p(-floor)))

    @cached_property
    def ratios(self) -> Array:
        """sigma / alpha of every timestep, that of a terminal alpha_bar of 0 being 4096."""
        bar = np.asarray(self.alpha_bar)
        bar[-1] = bar[-1] or FLOOR
        return np.sqrt((1.0 - bar) / bar)

    def lam(self, t: Array | float) -> Array:
        t = np.asarray(t, np.float64)
        low = np.clip(np.floor(t).astype(int), 0, len(self._lam) - 1)
        high = np.minimum(low + 1, len(self._lam) - 1)
        frac = t - low
        between = (1.0 - frac) * self._finite[low] + frac * self._finite[high]
        return np.where(t < 0, math.inf, np.where(frac == 0.0, self._lam[low], between))

    def alpha(self, t: Array | float) -> Array:
        return np.exp(-0.5 * np.logaddexp(0.0, -2.0 * self.lam(t)))

    def sigma(self, t: Array | float) -> Array:
        return np.exp(-0.5 * np.logaddexp(0.0, 2.0 * self.lam(t)))

    @cached_property
    def _betas(self) -> Array:
        table = np.asarray(self.alpha_bar)
        return 1.0 - table / np.concatenate(([1.0], table[:-1]))

    def beta(self, t: Array | float) -> Array:
        """The chain's beta, a rate a timestep; interpolated linearly between timesteps."""
        t = np.asarray(t, np.float64)
        return np.interp(t, np.arange(float(len(self._betas))), self._betas)

    def drift(self, t: Array | float) -> Array:
        return -0.5 * self.beta(t)

    def diffusion(self, t: Array | float) -> Array:
        return self.beta(t)

    def t_of_lam(self, lam: Array | float) -> Array:
        lam, table = np.asarray(lam, np.float64), self._finite
        inside = np.interp(-lam, -table, np.arange(float(len(table))))
        if len(table) == 1:
            return inside + table[0] - lam
        before = np.maximum(lam - table[0], 0.0) / (table[1] - table[0])
        return inside + before + np.minimum(lam - table[-1], 0.0) / (table[-1] - table[-2])

    @property
    def noisiest(self) -> Point:
        return replace(self.at_ratio(float(self.ratios[-1])), t=self.t_max)

    def prior_std(self, first: Point) -> float:
        return 1.0

    @property
    def clean(self) -> Point:
        return Point(-1.0, 1.0, 0.0)


def _whole(n: int) -> int:
    return checks.whole("n", n, 1, "a chain has a whole number of steps, 1 or more")
