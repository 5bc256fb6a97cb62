"""Exact moments of an affine sampler: no Monte Carlo, so coefficients are tested to rounding."""

import numpy as np


def output_moments(sampler, variance_T: float, max_draws: int) -> tuple[float, float]:
    """Mean and variance of sampler(x, noise) when x ~ N(0, variance_T) and the draws are normal.

    On Gaussian data the sampler is affine in x and in its draws. One run over a vector finds every
    coefficient: element 0 sees zeros, element 1 a unit x, element 2 + k a unit k-th draw.
    """
    size = max_draws + 2
    draws = 0

    def noise(step, stage):
        nonlocal draws
        z = np.zeros(size)
        z[2 + draws] = 1
        draws += 1
        return z

    x = np.zeros(size)
    x[1] = 1
    out = sampler(x, noise)
    weights = out[1:] - out[0]
    return float(out[0]), float(variance_T * weights[0] ** 2 + (weights[1:] ** 2).sum())
