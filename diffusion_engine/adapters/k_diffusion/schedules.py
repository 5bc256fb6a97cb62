"""k-diffusion's schedules: descending sigmas with a last 0, reckoned in float64 and rounded once."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ... import checks

LEVELS = "a schedule has a whole number of levels, 1 or more"
Device = torch.device | str


def append_zero(x: Tensor) -> Tensor:
    """x [n] with a 0 behind."""
    return torch.cat([x, x.new_zeros([1])])


def _made(sigmas: np.ndarray, device: Device) -> Tensor:
    return append_zero(torch.tensor(sigmas, dtype=torch.float32)).to(device)


def _places(n: int, first: float, last: float) -> np.ndarray:
    return np.linspace(first, last, checks.whole("n", n, 1, LEVELS))


def _ends(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    low, high = checks.number("sigma_min", sigma_min), checks.number("sigma_max", sigma_max)
    if not 0.0 < low <= high:
        raise ValueError(
            f"sigma_min={low:g} and sigma_max={high:g}: give 0 < sigma_min <= sigma_max"
        )
    return low, high


def get_sigmas_karras(
    n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Device = "cpu"
) -> Tensor:
    """n sigmas evenly spaced in sigma^(1 / rho), and 0 (Karras et al. 2022, eq. 5): [n + 1] float32."""
    low, high = _ends(sigma_min, sigma_max)
    return _made(_places(n, high ** (1.0 / rho), low ** (1.0 / rho)) ** rho, device)


def get_sigmas_exponential(
    n: int, sigma_min: float, sigma_max: float, device: Device = "cpu"
) -> Tensor:
    """n sigmas in geometric progression, and 0: [n + 1] float32."""
    return get_sigmas_polyexponential(n, sigma_min, sigma_max, 1.0, device)


def get_sigmas_polyexponential(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: Device = "cpu"
) -> Tensor:
    """n sigmas whose logarithms go from the greatest to the least as u^rho, u evenly from 1 to 0, and 0:
    [n + 1] float32."""
    low, high = map(math.log, _ends(sigma_min, sigma_max))
    return _made(np.exp(low + (high - low) * _places(n, 1.0, 0.0) ** rho), device)


def get_sigmas_vp(
    n: int,
    beta_d: float = 19.9,
    beta_min: float = 0.1,
    eps_s: float = 1e-3,
    device: Device = "cpu",
) -> Tensor:
    """n sigmas of VP at times evenly from 1 to eps_s, sigma^2 = exp(beta_d t^2 / 2 + beta_min t) - 1, and 0:
    [n + 1] float32."""
    t = _places(n, 1.0, eps_s)
    return _made(np.sqrt(np.expm1(0.5 * beta_d * t**2 + beta_min * t)), device)
