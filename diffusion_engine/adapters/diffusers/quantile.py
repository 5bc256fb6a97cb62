"""Quantiles of the symmetric beta distribution, from which use_beta_sigmas takes its levels."""

from __future__ import annotations

import math

import numpy as np

TERMS = 64  # each is at most half the one before


def beta_quantile(p: np.ndarray, a: float) -> np.ndarray:
    """x with I_x(a, a) = p, float64, shape of p in [0, 1].

    Below 1/2, I_x = x^a sum_k (1 - a)_k x^k / (k! (a + k)) / B(a, a); above it 1 - I_{1 - x}. By bisection,
    since I rises.
    """
    half = np.minimum(p, 1.0 - p)
    log_b = 2.0 * math.lgamma(a) - math.lgamma(2.0 * a)
    low, high = np.zeros_like(half), np.full_like(half, 0.5)
    for _ in range(100):
        x = 0.5 * (low + high)
        term, total = np.ones_like(x), np.zeros_like(x)
        for k in range(TERMS):
            total += term / (a + k)
            term = term * x * (k + 1.0 - a) / (k + 1.0)
        above = x**a * total * math.exp(-log_b) > half
        low, high = np.where(above, low, x), np.where(above, x, high)
    x = np.where(half > 0.0, 0.5 * (low + high), 0.0)
    return np.where(p <= 0.5, x, 1.0 - x)
