"""Denoising diffusion GANs: the reduced chain, and the exact law of its end (Xiao et al. 2022)."""

import numpy as np

from .common import Denoiser, Noise, steps


def chain(n, beta_min=0.1, beta_max=20.0, t_min=1e-3):
    """betas, cumulative alphas, and c1, c2, std of the posterior, index 0 the cleanest."""
    t = np.arange(n + 1) / n * (1 - t_min) + t_min
    bar = np.exp(-0.5 * t**2 * (beta_max - beta_min) - t * beta_min)
    betas = 1 - bar[1:] / bar[:-1]
    alphas = 1 - betas
    cum = np.cumprod(alphas)
    before = np.append(1.0, cum[:-1])
    c1 = betas * np.sqrt(before) / (1 - cum)
    c2 = (1 - before) * np.sqrt(alphas) / (1 - cum)
    std = np.sqrt(betas * (1 - before) / (1 - cum))
    return betas, cum, c1, c2, std


def end_moments(n, mu, s2):
    """Mean and variance of x after n steps from N(0, 1) with the exact posterior as generator."""
    _, cum, c1, c2, std = chain(n)
    mean, variance = 0.0, 1.0
    for i in reversed(range(n)):
        a = np.sqrt(cum[i])
        total = cum[i] * s2 + 1 - cum[i]
        gain = a * s2 / total
        offset = mu - gain * a * mu
        slope = c1[i] * gain + c2[i]
        mean = slope * mean + c1[i] * offset
        variance = (
            slope**2 * variance + c1[i] ** 2 * s2 * (1 - cum[i]) / total + std[i] ** 2 * (i > 0)
        )
    return mean, variance


def ddgan(denoiser: Denoiser, points, x, noise: Noise | None = None):
    """x_{i-1} = c1 x0 + c2 x_i + std n over all steps of the chain."""
    *_, c1, c2, std = chain(len(points) - 1)
    for step, s, _ in steps(points):
        i = len(std) - 1 - step
        x = c1[i] * denoiser(x, s) + c2[i] * x
        if i > 0:
            x = x + std[i] * noise(step, 0)
    return x
