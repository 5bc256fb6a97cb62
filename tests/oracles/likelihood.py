"""Likelihoods in float64: closed forms, the ODE in t by scipy, and the terms of VDM's bound by quadrature."""

import math

import numpy as np
from scipy.integrate import quad, solve_ivp
from scipy.special import logsumexp

LOG_2PI = math.log(2.0 * math.pi)


def log_normal(x, variance):
    """log N(x; 0, variance I) of one sample."""
    x = np.asarray(x, float).ravel()
    return -0.5 * (x @ x / variance + x.size * (LOG_2PI + math.log(variance)))


def log_mixture(x, data, alpha, sigma):
    """log p of one sample whose elements are draws of a mixture (weights, means, stds), noised."""
    weights, means, stds = (np.asarray(v, float) for v in data)
    variance = alpha**2 * stds**2 + sigma**2
    apart = np.asarray(x, float).ravel()[:, None] - alpha * means
    each = np.log(weights) - 0.5 * (apart**2 / variance + np.log(variance) + LOG_2PI)
    return logsumexp(each, axis=1).sum()


def score(x, data, alpha, sigma):
    """d log p / dx of an element, and its derivative."""
    weights, means, stds = (np.asarray(v, float) for v in data)
    variance = alpha**2 * stds**2 + sigma**2
    apart = np.asarray(x, float)[:, None] - alpha * means
    log = np.log(weights) - 0.5 * (apart**2 / variance + np.log(variance))
    share = np.exp(log - logsumexp(log, axis=1, keepdims=True))
    each = -apart / variance
    mean = (share * each).sum(1)
    return mean, (share * (each**2 - 1.0 / variance)).sum(1) - mean**2


def by_scipy(x, data, law, start, end, tolerance=1e-10):
    """(x at the end, integral of the divergence) of dx/dt = f x - G^2 s / 2 from t = start to end.

    law  t -> (alpha, sigma, f, G^2)
    """
    x = np.asarray(x, float).ravel()

    def rates(t, state):
        alpha, sigma, drift, square = law(t)
        s, slope = score(state[:-1], data, alpha, sigma)
        return np.append(
            drift * state[:-1] - 0.5 * square * s, (drift - 0.5 * square * slope).sum()
        )

    found = solve_ivp(
        rates, (start, end), np.append(x, 0.0), method="DOP853", rtol=tolerance, atol=tolerance
    )
    return found.y[:-1, -1], found.y[-1, -1]


def dequantised(image, u):
    """y of images in [0, 1], then scaled to [-1, 1]."""
    return 2.0 * (255.0 * image + u) / 256.0 - 1.0


def gaussian_gap(gamma, apart, variance):
    """E |eps - eps_hat|^2 of data N(mean, variance), x - mean = apart, at gamma = log(sigma^2 / alpha^2)."""
    alpha, sigma = (1.0 / (1.0 + math.exp(s * gamma)) for s in (1.0, -1.0))  # both squared
    total = alpha * variance + sigma
    return (1.0 - sigma / total) ** 2 + sigma * alpha * apart**2 / total**2


def diffusion_term(x, mean, variance, low, high, steps=None):
    """VDM's diffusion term of one sample in nats, gamma linear from low to high, for the exact eps_hat."""
    apart = np.asarray(x, float).ravel() - mean
    if steps is None:
        each = [
            quad(gaussian_gap, low, high, args=(d, variance), limit=400, epsabs=1e-9)[0]
            for d in apart
        ]
        return 0.5 * sum(each)
    width = (high - low) / steps
    gammas = low + width * np.arange(1, steps + 1)
    return 0.5 * math.expm1(width) * sum(gaussian_gap(g, apart, variance).sum() for g in gammas)


def joint_gaussian(x, v, covariance):
    """log N((x, v); 0, covariance) of one sample, independent elements."""
    u = np.stack([np.ravel(x), np.ravel(v)])
    square = np.einsum("in,ij,jn->", u, np.linalg.inv(covariance), u)
    return -0.5 * (square + u.shape[1] * (np.linalg.slogdet(covariance)[1] + 2.0 * LOG_2PI))
