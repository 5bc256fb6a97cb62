"""Flow-SDE and CPS, as Flow-GRPO and Flow-CPS write them for x_t = (1 - t) x0 + t x1 and a velocity."""

import math

from .common import Array, Denoiser, Noise, steps


def flow_sde(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, noise_level=0.7, denoise=True
) -> Array:  # fmt: skip
    """x + [v + s^2 / (2 t) (x + (1 - t) v)] dt + s sqrt(-dt) z, s = a sqrt(t / (1 - t)).

    Other processes are flows of x / (alpha + sigma) at t = sigma / (alpha + sigma).
    """
    for step, s, t in steps(points):
        x0 = denoiser(x, s)
        if t.sigma == 0 and denoise:
            return t.alpha * x0
        size = s.alpha + s.sigma
        now, then = s.sigma / size, t.sigma / (t.alpha + t.sigma)
        y, dt = x / size, then - now
        v = (y - x0) / now
        variance = noise_level**2 * now / (1 - (now if now < 1 else then))
        y = y + (v + variance / (2 * now) * (y + (1 - now) * v)) * dt
        if noise_level:
            y = y + math.sqrt(-dt * variance) * noise(step, 0)
        x = (t.alpha + t.sigma) * y
    return x


def cps(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, noise_level=0.7
) -> Array:
    """(1 - t) x0 + t cos(a pi / 2) x1 + t sin(a pi / 2) z, of the predicted x0 and x1."""
    angle = noise_level * math.pi / 2
    for step, s, t in steps(points):
        x0 = denoiser(x, s)
        x1 = (x - s.alpha * x0) / s.sigma
        x = t.alpha * x0 + t.sigma * math.cos(angle) * x1
        if t.sigma * math.sin(angle) > 0:
            x = x + t.sigma * math.sin(angle) * noise(step, 0)
    return x
