"""Forward noising laws x_t = alpha(t) x0 + sigma(t) eps, eps ~ N(0, I), in float64 on the host.

Times run from `t_min` (almost data) to `t_max` (noise); `lam` = log(alpha / sigma) falls with t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from .. import checks

Array = np.ndarray


@dataclass(frozen=True)
class Point:
    """One time of a run: t, and the law x_t = alpha x0 + sigma eps there."""

    t: float
    alpha: float
    sigma: float

    @property
    def lam(self) -> float:
        """Half log-SNR log(alpha / sigma); +inf at clean data, -inf at pure noise."""
        if self.sigma == 0.0:
            return math.inf
        return math.log(self.alpha / self.sigma) if self.alpha > 0.0 else -math.inf

    @property
    def ratio(self) -> float:
        """Noise-to-signal ratio g = sigma / alpha (EDM's sigma); inf at pure noise."""
        return self.sigma / self.alpha if self.alpha > 0.0 else math.inf


@dataclass(frozen=True, kw_only=True)
class GaussianProcess:
    """A law given by `alpha`, `sigma` and the inverse of lam; subclasses supply the three. Its numbers are
    given by name.

    A run goes from t_max to t_min. A time outside `range` raises; a noise level outside it keeps its value
    and has the label of the nearest time. `parts` is how many of x's shape the state and the network's input
    have: 1, x alone, or 2, [x, v].
    """

    default_grid: ClassVar[str] = "lambda"
    parts: ClassVar[int] = 1
    t_min: float
    t_max: float

    def __post_init__(self) -> None:
        self._settle()
        if not self.t_min < self.t_max:
            raise ValueError(
                f"{type(self).__name__} has t_min={self.t_min:g} and t_max={self.t_max:g}: its runs go from "
                "t_max to t_min, so that t_min is the smaller"
            )
        if self.t_min < (low := self.range[0]):
            raise ValueError(
                f"{type(self).__name__} has t_min={self.t_min:g}, and its times begin at {low:g}"
            )

    def _settle(self) -> None:
        """Puts the numbers into Python's own kind. Raises ValueError where one is not finite."""
        for field in fields(self):
            if field.type == "float":
                checks.settle(self, field.name, checks.number)

    def alpha(self, t: Array | float) -> Array:
        """Signal scale, float64, same shape as t."""
        raise NotImplementedError

    def sigma(self, t: Array | float) -> Array:
        """Noise standard deviation, float64, same shape as t."""
        raise NotImplementedError

    def t_of_lam(self, lam: Array | float) -> Array:
        """The time at which log(alpha / sigma) equals lam; it goes on falling with lam outside `range`."""
        raise NotImplementedError

    def lam(self, t: Array | float) -> Array:
        """Half log-SNR log(alpha / sigma)."""
        return np.log(self.alpha(t)) - np.log(self.sigma(t))

    def drift(self, t: Array | float) -> Array:
        """f(t) of the forward SDE dx = f(t) x dt + G(t) dw, which is d log alpha / dt.

        A process that says neither this nor `diffusion` is none that SDE solvers run on.
        """
        raise NotImplementedError

    def diffusion(self, t: Array | float) -> Array:
        """G(t)^2 of that SDE, d sigma^2 / dt - 2 f(t) sigma^2."""
        raise NotImplementedError

    def prior_std(self, first: Point) -> float:
        """Standard deviation of the law that a run whose first point is `first` draws its x from."""
        return first.sigma

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest time of the law; `clean` may have one of its own."""
        return 0.0, self.t_max

    def at(self, t: float) -> Point:
        """The point of time t. Raises ValueError outside `range`."""
        t, (low, high) = float(t), self.range
        if t == self.clean.t:
            return self.clean
        if not low <= t <= high + 1e-9 * abs(high):
            raise ValueError(
                f"t={t:g} is no time of {type(self).__name__}: they go from {low:g} to {high:g}, and clean "
                f"data is t={self.clean.t:g}; give one of them, or a noise level sigma / alpha as sigmas="
            )
        return Point(t, float(self.alpha(t)), float(self.sigma(t)))

    def at_ratio(self, g: float) -> Point:
        """The point whose sigma / alpha is g; its t is the nearest in `range`, and so its alpha^2 + sigma^2,
        or its alpha where that is 1."""
        g = float(g)
        near = self.at(float(np.clip(self.t_of_lam(-math.log(g)), *self.range)))
        size = math.hypot(near.alpha, near.sigma) / math.hypot(1.0, g)
        alpha = 1.0 if near.alpha == 1.0 else size
        return Point(near.t, alpha, alpha * g)

    def at_lam(self, lam: float) -> Point:
        """The point whose log(alpha / sigma) is lam, as `at_ratio`."""
        return self.at_ratio(math.exp(-lam))

    @property
    def noisiest(self) -> Point:
        """The first point of grids in sigma / alpha."""
        return self.at(self.t_max)

    @property
    def clean(self) -> Point:
        """The end of a run that returns the last `denoised`: alpha 1, sigma 0."""
        return Point(0.0, 1.0, 0.0)


def ends_at_1(process: GaussianProcess, there: str) -> None:
    """Raises ValueError where runs start beyond t = 1, where a schedule has its last value."""
    if process.t_max > 1.0:
        raise ValueError(
            f"{type(process).__name__} has t_max={process.t_max:g}, and its times end at 1, where {there}"
        )
