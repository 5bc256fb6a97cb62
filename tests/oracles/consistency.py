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


def lcm(
    denoiser: Denoiser,
    points,
    x,
    noise: Noise | None = None,
    *,
    scaling=10.0,
    original=50,
    schedule,
):
    """f = c_skip x + c_out x0 with a boundary at timestep 0, then noise to the next timestep; f = x0 where
    times are no timesteps."""
    for i, s, t in steps(points):
        f = denoiser(x, s)
        if type(schedule).__name__ == "DDPMTable":
            scaled = scaling * s.t
            f = 0.25 / (scaled**2 + 0.25) * x + scaled / (scaled**2 + 0.25) ** 0.5 * f
        x = t.alpha * f
        if i < len(points) - 2:
            x = x + t.sigma * noise(i, 0)
    return x


def scm(denoiser: Denoiser, points, x, noise: Noise | None = None):
    """Lu & Song 2025: x0, then cos t x0 + sin t z."""
    for i, s, t in steps(points):
        x0 = denoiser(x, s)
        x = x0 * t.alpha if i == len(points) - 2 else x0 * t.alpha + noise(i, 0) * t.sigma
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


def tcd(
    denoiser: Denoiser, points, x, noise: Noise | None = None, *, eta=0.3, original=50, schedule
):
    """Zheng et al. 2024, algorithm 4: x0 and eps at (1 - eta) t, then forward noise from there to t."""
    for i, s, t in steps(points):
        x0 = denoiser(x, s)
        eps = (x - s.alpha * x0) / s.sigma
        x = t.alpha * x0 + t.sigma * eps
        if eta > 0.0 and i < len(points) - 2 and t.sigma > 0.0:
            u = (1.0 - eta) * t.t
            u = math.floor(u) if type(schedule).__name__ == "DDPMTable" else u
            alpha, sigma = schedule.alpha(u), schedule.sigma(u)
            ratio = t.alpha / alpha
            x = ratio * (alpha * x0 + sigma * eps)
            x = x + math.sqrt(t.sigma**2 - (ratio * sigma) ** 2) * noise(i, 0)
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
