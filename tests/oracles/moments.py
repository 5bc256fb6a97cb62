"""Exact moments of an affine sampler: no Monte Carlo, so coefficients are tested to rounding."""

import math

import numpy as np


def weights(run, max_draws: int) -> np.ndarray:
    """[outputs, 1 + draws]: what run(draw) returns, in terms of 1 and of the normals that draw() gave.

    On Gaussian data a sampler is affine in its draws. One run over a vector finds every coefficient:
    element 0 sees zeros, element 1 + k a unit k-th draw.
    """
    units = iter(np.eye(1 + max_draws)[1:])
    out = np.asarray(run(lambda *_: next(units)))
    return np.column_stack([out[:, 0], out[:, 1:] - out[:, :1]])


def law(run, max_draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of what run(draw) returns."""
    found = weights(run, max_draws)
    return found[:, 0], found[:, 1:] @ found[:, 1:].T


def output_moments(sampler, variance_T: float, max_draws: int) -> tuple[float, float]:
    """Mean and variance of sampler(x, noise) when x ~ N(0, variance_T) and the draws are normal."""

    def run(draw):
        return [sampler(math.sqrt(variance_T) * draw(), draw)]

    mean, variance = law(run, 1 + max_draws)
    return float(mean[0]), float(variance[0, 0])
