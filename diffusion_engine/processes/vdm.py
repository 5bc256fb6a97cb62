"""Variational diffusion models' process, whose noise schedule is learned."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .. import checks
from .gaussian import Array, GaussianProcess, Point, ends_at_1

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Line:
    """low + (high - low) t."""

    low: float
    high: float

    def __call__(self, t: Array) -> Array:
        return self.low + (self.high - self.low) * t


@dataclass(frozen=True, eq=False)
class Net:
    """gamma(t) of a network, on the host in float64."""

    module: nn.Module

    def __call__(self, t: Array) -> Array:
        import torch

        with torch.no_grad():
            made = self.module(torch.from_numpy(t.reshape(-1, 1)))
        if made.numel() != t.size:
            raise ValueError(
                f"{type(self.module).__name__} made {list(made.shape)} of {t.size} times [{t.size}, 1]; "
                "gamma is one value a time"
            )
        return made.reshape(t.shape).numpy()


@dataclass(frozen=True, kw_only=True)
class VDM(GaussianProcess):
    """alpha^2 = sigmoid(-gamma(t)), sigma^2 = sigmoid(gamma(t)) (Kingma et al. 2021, eq. 3).

    gamma  rising with t, of float64 arrays; the default is the linear one of VDM's CIFAR-10 model.
           `from_module` takes a network.
    Raises ValueError where gamma does not rise from t_min to t_max, or is not finite.
    """

    default_grid: ClassVar[str] = "uniform"
    t_min: float = 0.0
    t_max: float = 1.0
    gamma: Callable[[Array], Array] = Line(-13.3, 5.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        ends_at_1(self, "gamma ends")
        checks.function("gamma", self.gamma, "give a function of times that rises")
        values = self._gamma(np.linspace(self.t_min, self.t_max, 33))
        if not (np.all(np.isfinite(values)) and np.all(np.diff(values) > 0.0)):
            raise ValueError(
                f"gamma goes from {values[0]:g} to {values[-1]:g} over t={self.t_min:g} to {self.t_max:g}; "
                "it has to rise strictly: it is log(sigma^2 / alpha^2)"
            )

    @classmethod
    def linear(cls, gamma_min: float = -13.3, gamma_max: float = 5.0) -> VDM:
        """gamma_min + (gamma_max - gamma_min) t."""
        return cls(gamma=Line(gamma_min, gamma_max))

    @classmethod
    def from_module(cls, module: nn.Module) -> VDM:
        """The process of a module gamma(t), called with [n, 1], as its weights are now.

        It is evaluated on the host in float64, when a plan is made. Raises ValueError where it returns
        another number of values than n.
        """
        import torch

        return cls(gamma=Net(copy.deepcopy(module).to("cpu", torch.float64).eval()))

    def _gamma(self, t: Array | float) -> Array:
        return np.asarray(self.gamma(np.array(t, np.float64)), np.float64)

    def lam(self, t: Array | float) -> Array:
        return -0.5 * self._gamma(t)

    def alpha(self, t: Array | float) -> Array:
        return np.exp(-0.5 * np.logaddexp(0.0, self._gamma(t)))

    def sigma(self, t: Array | float) -> Array:
        return np.exp(-0.5 * np.logaddexp(0.0, -self._gamma(t)))

    def t_of_lam(self, lam: Array | float) -> Array:
        lam = np.asarray(lam, np.float64)
        low, high = np.full(lam.shape, self.t_min), np.full(lam.shape, self.t_max)
        for _ in range(60):  # bisection: nothing but monotony is known of gamma
            middle = 0.5 * (low + high)
            below = self.lam(middle) > lam
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        first, last = self.lam(self.t_min), self.lam(self.t_max)
        beyond = np.maximum(lam - first, 0.0) + np.minimum(lam - last, 0.0)
        return 0.5 * (low + high) + beyond * (self.t_max - self.t_min) / (last - first)

    def prior_std(self, first: Point) -> float:
        return 1.0

    @property
    def clean(self) -> Point:
        return Point(-1.0, 1.0, 0.0)  # t = 0 still has noise
