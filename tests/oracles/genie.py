"""GENIE's second truncated Taylor method on x_bar = x / alpha, with the derivative in closed form."""

import math

import numpy as np

from .problems import Mixture


def slope(problem: Mixture, x_bar, g: float):
    """(eps, d eps / dg) along d x_bar / dg = eps, for mixture data whose variance at g is std^2 + g^2."""
    x_bar = np.asarray(x_bar, float)[..., None]
    distance, variance = x_bar - problem.means, problem.stds**2 + g**2
    log_r = np.log(problem.weights) - np.log(variance) / 2 - distance**2 / variance / 2
    r = np.exp(log_r - log_r.max(-1, keepdims=True))
    r = r / r.sum(-1, keepdims=True)
    score = (r * distance / variance).sum(-1)
    eps = g * score
    # Along the ODE x_bar moves at the rate eps, and the variance at 2 g.
    d_distance, d_variance = eps[..., None], 2 * g
    d_log = -distance * d_distance / variance
    d_log = d_log + (distance**2 / variance**2 - 1 / variance) * d_variance / 2
    d_r = r * (d_log - (r * d_log).sum(-1, keepdims=True))
    d_ratio = d_distance / variance - distance * d_variance / variance**2
    d_score = (d_r * distance / variance + r * d_ratio).sum(-1)
    return eps, score + g * d_score


def genie(problem: Mixture, points, x, *, afs=False, denoise=False):
    """TTM2 from points[0] to points[-1] in natural coordinates; afs: eps = x and no derivative at first."""
    g = [p.ratio for p in points]
    x_bar = np.asarray(x, float) / points[0].alpha
    for n in range(len(g) - 1):
        h = g[n + 1] - g[n]
        if n == 0 and afs:
            eps, d_eps = x_bar / math.sqrt(1 + g[0] ** 2), 0.0
        else:
            eps, d_eps = slope(problem, x_bar, g[n])
        x_bar = x_bar + h * eps + h**2 / 2 * d_eps
    if denoise:
        return x_bar - g[-1] * slope(problem, x_bar, g[-1])[0]
    return points[-1].alpha * x_bar
