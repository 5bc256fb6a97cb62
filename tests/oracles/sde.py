"""Score SDEs (Song et al. 2021) and annealed Langevin dynamics, with scores in place of denoisers."""

import math

import numpy as np

from .common import Array, Denoiser, Noise, Point, steps
from .problems import EDM, VE, DDPMTable, Flow, SubVP


def drift_and_diffusion(schedule, t) -> tuple[float, float]:
    """f and G^2 of dx = f x dt + G dw."""
    if isinstance(schedule, VE):
        return 0.0, 2 * schedule.sigma(t) ** 2 * schedule.log_range
    if isinstance(schedule, EDM):
        return 0.0, 2 * t
    if isinstance(schedule, Flow):
        return -1 / (1 - t), 2 * t / (1 - t)
    if isinstance(schedule, DDPMTable):
        before = np.concatenate([[1.0], schedule.alpha_bar[:-1]])
        beta = np.interp(t, schedule.timesteps, 1 - schedule.alpha_bar / before)
        return -beta / 2, beta
    beta = schedule.beta(t)
    if isinstance(schedule, SubVP):
        integral = schedule.b0 * t + schedule.slope * t**2 / 2
        return -beta / 2, beta * (1 - math.exp(-2 * integral))
    return -beta / 2, beta


def score(x: Array, s: Point, denoised: Array) -> Array:
    return (s.alpha * denoised - x) / s.sigma**2


def predictor(denoiser, points, x, noise, step, published, denoise):
    """The loop of all predictors: step(x, score, s, t, delta or None) -> (mean, scale of the noise)."""
    n = len(points) - 1
    for i, s, t in steps(points):
        denoised = denoiser(x, s)
        if t.sigma == 0 and not published:
            return denoised
        mean, scale = step(x, score(x, s, denoised), s, t, 1 / n if published else s.t - t.t)
        silent = scale == 0 or (i == n - 1 and denoise)
        x = mean if silent else mean + scale * noise(i, 0)
    return x


def euler_maruyama(
    denoiser: Denoiser, points, x, noise: Noise | None = None, *, schedule, step="grid", denoise=True,
    ode=False,
):  # fmt: skip
    """x - dt (f - G^2 s) + G sqrt(dt) z, or the ODE with G^2 / 2."""

    def move(x, grad, s, t, delta):
        f, g2 = drift_and_diffusion(schedule, s.t)
        change = f * x - (g2 / 2 if ode else g2) * grad
        return x - delta * change, 0.0 if ode else math.sqrt(g2 * delta)

    return predictor(denoiser, points, x, noise, move, step == "1/N", denoise)


def dpdm_sde(
    denoiser: Denoiser, points, x, noise: Noise | None = None, *, schedule, denoise=True, ode=False, **options
):  # fmt: skip
    """On EDM the code's own lines, elsewhere Euler and Maruyama's; an ODE has half the slope and no noise."""
    if not isinstance(schedule, EDM):
        return euler_maruyama(
            denoiser, points, x, noise, schedule=schedule, denoise=denoise, ode=ode, **options
        )
    for i, s, t in steps(points):
        denoised = denoiser(x, s)
        dt = t.sigma - s.sigma
        if t.sigma == 0:
            return denoised
        x = x + (1 if ode else 2) * dt * (x - denoised) / s.sigma
        if not ode and not (denoise and i == len(points) - 2):
            x = x + math.sqrt(2 * abs(dt) * s.sigma) * noise(i, 0)
    return x


def chain(schedule, s, t, delta, published, n):
    """(decay, variance) of one step of the forward chain from t to s, and the level it ends on."""
    if isinstance(schedule, SubVP):  # no chain is given: Euler and Maruyama
        f, g2 = drift_and_diffusion(schedule, s.t)
        return 1 + f * delta, g2 * delta, s.sigma
    if not published:
        decay = s.alpha / t.alpha
        return decay, s.sigma**2 - decay**2 * t.sigma**2, s.sigma
    k = round(s.t * (n - 1))
    if isinstance(schedule, VE):
        table = np.exp(np.linspace(math.log(schedule.sigma(0.0)), math.log(schedule.sigma(1.0)), n))
        return 1.0, table[k] ** 2 - (table[k - 1] ** 2 if k else 0.0), table[k]
    beta = np.linspace(schedule.b0 / n, (schedule.b0 + schedule.slope) / n, n)[k]
    return math.sqrt(1 - beta), beta, s.sigma


def reverse_diffusion(
    denoiser: Denoiser, points, x, noise: Noise | None = None, *, schedule, step="grid", denoise=True,
    ode=False,
):  # fmt: skip
    """x - f_i + G_i^2 s with the chain x_{i+1} = x_i + f_i + G_i z."""

    def move(x, grad, s, t, delta):
        decay, variance, _ = chain(schedule, s, t, delta, step == "1/N", len(points) - 1)
        f_i = decay * x - x
        mean = x - f_i + (variance / 2 if ode else variance) * grad
        return mean, 0.0 if ode else math.sqrt(variance)

    return predictor(denoiser, points, x, noise, move, step == "1/N", denoise)


def ancestral(
    denoiser: Denoiser, points, x, noise: Noise | None = None, *, schedule, step="grid", denoise=True
):  # fmt: skip
    """(x + beta s) / sqrt(1 - beta) + sqrt(beta) z for VP; SMLD's posterior where nothing decays."""

    def move(x, grad, s, t, delta):
        decay, variance, sigma = chain(schedule, s, t, delta, step == "1/N", len(points) - 1)
        if isinstance(schedule, (VE, EDM)):
            below = sigma**2 - variance
            return x + variance * grad, math.sqrt(below * variance / sigma**2)
        return (x + variance * grad) / decay, math.sqrt(variance)

    return predictor(denoiser, points, x, noise, move, step == "1/N", denoise)


def ald(
    denoiser: Denoiser, points, x, noise: Noise | None = None, *, schedule, n_steps=100, snr=0.316,
    denoise=True,
):  # fmt: skip
    """e = 2 a (snr sigma)^2, x <- x + e s + sqrt(2 e) z; x / alpha is kept from level to level."""
    points = [Point(*p) for p in points]
    levels = [p for p in points if p.sigma > 0]
    before = levels[0]
    for i, s in enumerate(levels):
        x = x * (s.alpha / before.alpha)
        before = s
        if isinstance(schedule, (VE, EDM, Flow)):
            a = 1.0
        elif isinstance(schedule, DDPMTable):
            a = 1 - drift_and_diffusion(schedule, s.t)[1]
        else:
            a = 1 - schedule.beta(s.t) / 1000
        e = 2 * a * (snr * s.sigma) ** 2
        for j in range(n_steps):
            x = x + e * score(x, s, denoiser(x, s)) + math.sqrt(2 * e) * noise(i, j)
    if points[-1].sigma > 0:
        return x
    return denoiser(x, levels[-1]) if denoise else x / levels[-1].alpha
