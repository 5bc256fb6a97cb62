"""Consistency models, latent consistency models, flow maps, and VDM's ancestral sampler."""

import math

from .common import Denoiser, Noise, steps


def consistency(denoiser: Denoiser, points, x, noise: Noise | None = None, *, least=None, schedule):
    """Song et al. 2023, algorithm 1, in x / alpha: f, then noise back up to the next level."""
    if least is None:
        last = {"VE": 1e-5, "EDM": 0.002, "DDPMTable": 0.0}.get(type(schedule).__name__, 1e-3)
        least = math.exp(-float(schedule.lam(last)))
    for i, s, t in steps(points):
        x = t.alpha * denoiser(x, s)
        if i < len(points) - 2 and t.ratio > least:
            x = x + t.alpha * math.sqrt(t.ratio**2 - least**2) * noise(i, 0)
    return x


def lcm(denoiser: Denoiser, points, x, noise: Noise | None = None, *, scaling=10.0, original=50):
    """f = c_skip x + c_out x0 with a boundary at timestep 0, then noise to the next timestep."""
    for i, s, t in steps(points):
        scaled = scaling * s.t
        c_skip = 0.25 / (scaled**2 + 0.25)
        c_out = scaled / (scaled**2 + 0.25) ** 0.5
        f = c_skip * x + c_out * denoiser(x, s)
        x = t.alpha * f
        if i < len(points) - 2:
            x = x + t.sigma * noise(i, 0)
    return x


def flow_map(denoiser: Denoiser, points, x, noise: Noise | None = None, *, gamma=0.0):
    """Kim et al. 2024, algorithm 3: to sqrt(1 - gamma^2) of the next level, then noise back up to it."""
    for i, s, t in steps(points):
        x0 = denoiser(x, s)
        eps, last = (x - s.alpha * x0) / s.sigma, i == len(points) - 2
        x = t.alpha * x0 + (1.0 if last else math.sqrt(1.0 - gamma**2)) * t.sigma * eps
        if gamma and not last:
            x = x + gamma * t.sigma * noise(i, 0)
    return x


def vdm(denoiser: Denoiser, points, x, noise: Noise | None = None):
    """Kingma et al. 2021, eq. 34, in gamma."""
    for i, s, t in steps(points):
        gamma_s, gamma_t = -2 * s.lam, -2 * t.lam
        c = -math.expm1(gamma_t - gamma_s)
        eps_hat = (x - s.alpha * denoiser(x, s)) / s.sigma
        x = t.alpha / s.alpha * (x - s.sigma * c * eps_hat)
        if t.sigma > 0:
            x = x + math.sqrt(t.sigma**2 * c) * noise(i, 0)
    return x
