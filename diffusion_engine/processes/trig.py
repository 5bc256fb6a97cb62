"""TrigFlow: alpha and sigma on a quarter of an ellipse, as continuous-time consistency models have them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .gaussian import Array, GaussianProcess


@dataclass(frozen=True, kw_only=True)
class TrigFlow(GaussianProcess):
    """alpha = cos t, sigma = sigma_data sin t, t up to pi / 2 (Lu & Song 2025, section 3.1).

    sigma_data  the data's standard deviation, which is then the state's at every time
    """

    default_grid: ClassVar[str] = "uniform"
    sigma_data: float = 0.5
    t_min: float = math.atan(0.002 / 0.5)
    t_max: float = 0.5 * math.pi

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sigma_data > 0.0:
            raise ValueError(f"sigma_data={self.sigma_data:g}: a standard deviation is above 0")
        if self.t_max > 0.5 * math.pi:
            raise ValueError(f"t_max={self.t_max:g}: TrigFlow ends at pi / 2, where alpha is 0")

    def alpha(self, t: Array | float) -> Array:
        t = np.asarray(t, np.float64)
        return np.where(t == 0.5 * math.pi, 0.0, np.cos(t))

    def sigma(self, t: Array | float) -> Array:
        return self.sigma_data * np.sin(np.asarray(t, np.float64))

    def drift(self, t: Array | float) -> Array:
        return -np.tan(np.asarray(t, np.float64))

    def diffusion(self, t: Array | float) -> Array:
        return 2.0 * self.sigma_data**2 * np.tan(np.asarray(t, np.float64))

    def t_of_lam(self, lam: Array | float) -> Array:
        return np.arctan(np.exp(-np.asarray(lam, np.float64)) / self.sigma_data)
