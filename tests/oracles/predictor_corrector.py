"""Predictor-corrector sampling (Song et al. 2021), with scores in place of denoisers: x is [batch, elements].

Published: times t_i = linspace(T, eps, N), both ends included; at each the corrector first, then the
predictor with a new call; what is returned is x_mean of the last predictor.
"""

import math

import numpy as np

from .common import Array, Denoiser, first_order, steps
from .problems import VE
from .sde import chain, drift_and_diffusion, score


def alpha_of(schedule, s, t, published, n) -> float:
    """a = 1 - beta_i: of the table of N levels, or of the chain that leads from t to s."""
    if not published:
        return (s.alpha / t.alpha) ** 2
    if isinstance(schedule, VE):
        return 1.0
    betas = np.linspace(schedule.b0 / n, (schedule.b0 + schedule.slope) / n, n)
    return 1.0 - betas[round(s.t * (n - 1))]


def step_size(kind, snr, a, s, g: Array, z: Array, rule) -> Array:
    """e, [batch, 1]; norms are of a sample each, and their means over the batch as published."""
    if kind == "ald":
        return np.full((len(g), 1), 2 * a * (snr * s.sigma) ** 2)
    g_norm, z_norm = (np.linalg.norm(v, axis=1, keepdims=True) for v in (g, z))
    if rule == "batch":
        g_norm, z_norm = (np.full_like(v, v.mean()) for v in (g_norm, z_norm))
    return 2 * a * (snr * z_norm / g_norm) ** 2


def correct(denoiser, x, s, a, draws, *, corrector, snr, rule) -> Array:
    """draws: a [batch, elements] for every step of the corrector."""
    for z in draws:
        g = score(x, s, denoiser(x, s))
        e = step_size(corrector, snr, a, s, g, z, rule)
        x = x + e * g + np.sqrt(2 * e) * z
    return x


def predictor_corrector(
    denoiser: Denoiser, points, x: Array, noise, draws, *, schedule, predictor, published=True,
    corrector="langevin", snr=0.16, rule="batch",
):  # fmt: skip
    """noise(i) of the predictor's step i, draws(i) of the corrector's steps before it."""
    n, before = len(points) - 1, None
    x_mean = x
    for i, s, t in steps(points):
        a = alpha_of(schedule, s, t, published, n)
        x = correct(denoiser, x, s, a, draws(i), corrector=corrector, snr=snr, rule=rule)
        denoised = denoiser(x, s)
        if predictor == "dpmpp_2m":
            x = x_mean = multistep(x, s, t, denoised, before)
            before = (s, denoised)
        elif t.sigma == 0 and not published:
            x_mean = denoised
        else:
            x_mean, std = predict(predictor, x, score(x, s, denoised), schedule, s, t, published, n)
            x = x_mean + std * noise(i)
    return x_mean


def predict(predictor, x, g, schedule, s, t, published, n):
    """x_mean, and the scale of its noise."""
    delta = 1 / n if published else s.t - t.t
    if predictor == "euler_maruyama":
        f, g2 = drift_and_diffusion(schedule, s.t)
        return x - delta * (f * x - g2 * g), math.sqrt(g2 * delta)
    decay, variance, _ = chain(schedule, s, t, delta, published, n)
    return (2 - decay) * x + variance * g, math.sqrt(variance)


def multistep(x, s, t, denoised, before):
    """DPM-Solver++(2M) of Lu et al. 2022, of first order at both ends."""
    if before is not None and t.sigma > 0:
        r = (s.lam - before[0].lam) / (t.lam - s.lam)
        denoised = denoised + (denoised - before[1]) / (2 * r)
    return first_order(x, s, t, denoised)


def ncsn(denoiser: Denoiser, levels, x: Array, noise, *, eps, n_steps):
    """Algorithm 1 of Song & Ermon 2019 as its code has it: n_steps at each level,
    e_i = eps (sigma_i / sigma_L)^2, x <- x + e_i s + sqrt(2 e_i) z."""
    for i, s in enumerate(levels):
        e = eps * (s.sigma / levels[-1].sigma) ** 2
        for j in range(n_steps):
            x = x + e * score(x, s, denoiser(x, s)) + math.sqrt(2 * e) * noise(i, j)
    return x
