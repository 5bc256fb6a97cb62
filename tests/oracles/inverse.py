"""Inverse problems on correlated mixtures, in dense linear algebra: corrected estimates of x0, and the loops
of those methods that move the state."""

import math

import numpy as np

from .common import Array, Noise, Point, eps_of, first_order, steps
from .correlated import Correlated


def covariance(data: Correlated, x: Array, at: Point) -> Array:
    """Cov[x0 | x] of x [d]."""
    share, means, spread = data._at(x, at.alpha, at.sigma)
    mean = share @ means
    total = -np.outer(mean, mean)
    for weight, centre, prior, wide in zip(share, means, data.covariances, spread, strict=True):
        left = prior - at.alpha**2 * prior @ np.linalg.inv(wide) @ prior
        total = total + weight * (left + np.outer(centre, centre))
    return total


def jacobian(data: Correlated, x: Array, at: Point) -> Array:
    """d E[x0 | x] / dx, by Tweedie's second formula."""
    return at.alpha / at.sigma**2 * covariance(data, x, at)


def posterior(mean: Array, prior: Array, a: Array, y: Array, sigma_y: float) -> tuple[Array, Array]:
    """Mean and covariance of x0 ~ N(mean, prior) given y = a x0 + sigma_y n."""
    gain = prior @ a.T @ np.linalg.inv(a @ prior @ a.T + sigma_y**2 * np.eye(len(a)))
    return mean + gain @ (y - a @ mean), prior - gain @ a @ prior


def mmps(data, x, at, a, y, *, sigma_y):
    """E[x0 | x, y], were x0 given x Gaussian."""
    return posterior(data.denoiser(x, at), covariance(data, x, at), a, y, sigma_y)[0]


def pgdm(data, x, at, a, y, *, sigma_y, sigma_data):
    x0, square = data.denoiser(x, at), at.ratio**2
    r = sigma_data**2 * square / (sigma_data**2 + square)
    w = np.linalg.solve(r * a @ a.T + sigma_y**2 * np.eye(len(a)), y - a @ x0)
    return x0 + at.sigma**2 / at.alpha * jacobian(data, x, at).T @ a.T @ w


def diffpir(data, x, at, a, y, *, sigma_y, lam):
    """The minimum of ||y - a z||^2 + rho ||z - x0||^2 over z."""
    rho = lam * sigma_y**2 / at.ratio**2
    x0 = data.denoiser(x, at)
    return np.linalg.solve(a.T @ a + rho * np.eye(len(x)), a.T @ y + rho * x0)


def _moved(data, points, x: Array, noise: Noise | None, eta: float, shift) -> Array:
    """DDIM, each of whose steps from s to t is followed by + shift(x_s, s, t)."""
    for step, s, t in steps(points):
        x0, moved = data.denoiser(x, s), shift(x, s, t)
        if t.sigma == 0 or eta == 0:
            x = first_order(x, s, t, x0) + moved
            continue
        c = eta * t.sigma * math.sqrt(-math.expm1(2 * (s.lam - t.lam)))
        rest = math.sqrt(t.sigma**2 - c**2)
        x = t.alpha * x0 + rest * eps_of(x, s, x0) + c * noise(step, 0) + moved
    return x


def dps(data, points, x, noise, a, y, *, eta, zeta):
    def down(x, s, t):
        left = y - a @ data.denoiser(x, s)
        return zeta * jacobian(data, x, s).T @ a.T @ left / np.linalg.norm(left)

    return _moved(data, points, x, noise, eta, down)


def flowdps(data, points, x, noise, a, y, *, eta):
    """With all the steps that the least squares take."""

    def toward(x, s, t):
        x0 = data.denoiser(x, s)
        return t.alpha * s.sigma / (s.alpha + s.sigma) * np.linalg.pinv(a) @ (y - a @ x0)

    return _moved(data, points, x, noise, eta, toward)
