"""What every oracle shares: points of a run, phi functions and the exact first-order step.

Notation. A state is x = alpha x0 + sigma eps. lam = log(alpha / sigma) grows along sampling and
h = lam_t - lam_s > 0 for a step from the noisier point s to the cleaner point t. ratio is
sigma / alpha, the noise level of x / alpha (the "sigma" of EDM and k-diffusion).

Ends of a run. sigma_t = 0 means h = inf, and every data-prediction form tends to x = denoised.
alpha_s = 0 means lam = -inf and an infinite ratio: the step is first order, and what was predicted
there takes no part in later interpolation in lam or ratio. Methods that interpolate in t or by
position (tAB, iPNDM, PLMS) keep it.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray


class Point(NamedTuple):
    """One point of a run, as the denoiser sees it."""

    t: float
    alpha: float
    sigma: float
    lam: float

    @property
    def ratio(self) -> float:
        return math.inf if self.alpha == 0 else self.sigma / self.alpha


Denoiser = Callable[[Array, Point], Array]
Noise = Callable[[int, int], Array]


def steps(points) -> list[tuple[int, Point, Point]]:
    """(step, s, t) for consecutive points, s noisier than t."""
    points = [Point(*point) for point in points]
    return [(step, s, t) for step, (s, t) in enumerate(itertools.pairwise(points))]


def at_end(s: Point, t: Point) -> bool:
    """Whether h is infinite, so that only the first-order step makes sense."""
    return s.alpha == 0 or t.sigma == 0


def order_at(step: int, n_steps: int, order: int, lower_order_final: bool) -> int:
    """Order rises by one per step from 1 and, if asked, falls to 1 on the last step."""
    left = n_steps - step if lower_order_final else order
    return min(order, step + 1, left)


def usable(history, order: int):
    """The newest `order` (point, prediction) pairs, without any at alpha = 0 (see the top)."""
    return [entry for entry in history if entry[0].alpha > 0][:order]


def first_order(x: Array, s: Point, t: Point, denoised: Array) -> Array:
    """DDIM = DPM-Solver-1: exact if the x0 prediction is constant; finite at both ends."""
    return t.sigma / s.sigma * x - t.alpha * math.expm1(s.lam - t.lam) * denoised


def eps_of(x: Array, s: Point, denoised: Array) -> Array:
    return (x - s.alpha * denoised) / s.sigma


def phi(k: int, z: float) -> float:
    """phi_k(z) = sum_n z^n / (n + k)!, so phi_0 = exp and phi_{k+1} = (phi_k - 1/k!) / z."""
    if abs(z) < 1:  # the recurrence cancels here
        return math.fsum(z**n / math.factorial(n + k) for n in range(20))
    value = math.exp(z)
    for j in range(k):
        value = (value - 1 / math.factorial(j)) / z
    return value


def differences(history, h: float, kappa: float = 1.0):
    """Scaled divided differences (D1, D2) of two or three predictions, newest first.

    D1 estimates h * f'(lam_s), D2 is kappa * h^2 * f''(lam_s) / 2, so a Taylor expansion needs
    kappa = 2; public implementations of third-order multistep solvers use kappa = 1.
    """
    points, values = zip(*history, strict=True)
    r0 = (points[0].lam - points[1].lam) / h
    newest = (values[0] - values[1]) / r0
    if len(history) == 2:
        return newest, np.zeros_like(newest)
    r1 = (points[1].lam - points[2].lam) / h
    change = newest - (values[1] - values[2]) / r1
    return newest + r0 / (r0 + r1) * change, kappa * change / (r0 + r1)
