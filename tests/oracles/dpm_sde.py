"""DPM-Solver++ for the SDE, as k-diffusion runs it, in natural coordinates.

eta multiplies the exponent in 2M and 3M and the standard deviation in the singlestep solver.
"""

import math

from .common import (
    Array,
    Denoiser,
    Noise,
    at_end,
    differences,
    eps_of,
    order_at,
    phi,
    steps,
    usable,
)
from .dpm import second_order_weight
from .one_step import ancestral_split


def dpmpp_sde(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    schedule,
    eta=1.0,
    s_noise=1.0,
    r=0.5,
    one_path=True,
) -> Array:
    """k-diffusion's sample_dpmpp_sde: an ancestral sub-step to lam_s + r h, then the full one.

    Both noises are increments of one Brownian motion, whose clock is the signal-to-noise ratio: the full
    step's contains the sub-step's. Or they are two normals.
    """

    def ancestral(x, s, t, denoised, draw):
        down, up = ancestral_split(s.ratio, t.ratio, eta)
        shrink = 0.0 if s.ratio == math.inf else down / s.ratio
        x_t = t.alpha * (down / s.sigma * x + (1 - shrink) * denoised)
        if s_noise * up > 0:
            x_t = x_t + t.alpha * s_noise * up * draw()
        return x_t

    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        if at_end(s, t):
            x = ancestral(x, s, t, denoised, lambda step=step: noise(step, 1))
            continue
        u = schedule.point_at_lam(s.lam + r * (t.lam - s.lam))
        before, middle, after = (p.ratio**-2 for p in (s, u, t))
        path = [0.0, 0.0]  # W at u and at t, from W = 0 at s
        if s_noise * eta > 0:
            path[0] = math.sqrt(middle - before) * noise(step, 0)
            path[1] = path[0] + math.sqrt(after - middle) * noise(step, 1)
        half = path[0] / math.sqrt(middle - before)
        whole = path[1] / math.sqrt(after - before)
        if not one_path and s_noise * eta > 0:
            whole = (path[1] - path[0]) / math.sqrt(after - middle)
        denoised_u = denoiser(ancestral(x, s, u, denoised, lambda z=half: z), u)
        denoised = (1 - 1 / (2 * r)) * denoised + 1 / (2 * r) * denoised_u
        x = ancestral(x, s, t, denoised, lambda z=whole: z)
    return x


def first_order_sde(x, s, t, denoised, eta):
    """(mean, noise scale) of the exact step for a constant x0 prediction."""
    h = t.lam - s.lam
    eta_h = eta * h if eta else 0.0  # h may be infinite
    mean = t.sigma / s.sigma * math.exp(-eta_h) * x - t.alpha * math.expm1(-h - eta_h) * denoised
    return mean, t.sigma * math.sqrt(-math.expm1(-2 * eta_h))


def dpmpp_2m_sde(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    eta=1.0,
    s_noise=1.0,
    variant="midpoint",
    lower_order_final=False,
) -> Array:
    """k-diffusion's sample_dpmpp_2m_sde, with diffusers' lower_order_final."""
    history = []
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        history.insert(0, (s, denoised))
        x, scale = first_order_sde(x, s, t, denoised, eta)
        nodes = usable(history, order_at(step, len(points) - 1, 2, lower_order_final))
        if len(nodes) == 2 and not at_end(s, t):
            h = t.lam - s.lam
            d1, _ = differences(nodes, h)
            x = x + t.alpha * second_order_weight(variant, (1 + eta) * h) * d1
        if s_noise * scale > 0:
            x = x + s_noise * scale * noise(step, 0)
    return x


def dpmpp_3m_sde(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    eta=1.0,
    s_noise=1.0,
    kappa=1.0,
    variant="heun",
    flipped=False,
    lower_order_final=False,
    euler_at_final=False,
) -> Array:
    """k-diffusion's sample_dpmpp_3m_sde (kappa = 1); its second step is 2M's "heun".

    flipped is diffusers' weight of D2, (1 - e^-h - h) / h^2 - 1/2 with h = 2 (lam_t - lam_s) at eta = 1.
    """
    history, n = [], len(points) - 1
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        history.insert(0, (s, denoised))
        x, scale = first_order_sde(x, s, t, denoised, eta)
        order = order_at(step, n, 3, lower_order_final)
        nodes = usable(history, 1 if euler_at_final and step == n - 1 else order)
        if len(nodes) > 1 and not at_end(s, t):
            h = t.lam - s.lam
            d1, d2 = differences(nodes, h, kappa)
            h_eta = (1 + eta) * h
            if len(nodes) == 2:
                x = x + t.alpha * second_order_weight(variant, h_eta) * d1
            else:
                third = h_eta * phi(3, -h_eta)
                if flipped:
                    third = (-math.expm1(-h_eta) - h_eta) / h_eta**2 - 1 / 2
                x = x + t.alpha * (h_eta * phi(2, -h_eta) * d1 + third * d2)
        if s_noise * scale > 0:
            x = x + s_noise * scale * noise(step, 0)
    return x


def dpm_solver_sde(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    eta=1.0,
    s_noise=1.0,
    max_order=2,
    variant="midpoint",
    lower_order_final=False,
) -> Array:
    """The reverse SDE with eps frozen or on a line in lam over a step, and x's drift alone exact.

    dx = dlog(alpha) x - (1 + eta) sigma eps dlam + sigma sqrt(2 eta dlam) dw: at eta = 1 diffusers'
    "sde-dpmsolver". Where lam is infinite at an end, SDE-DPM-Solver++1.
    """
    history = []
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        eps = eps_of(x, s, denoised)
        history.insert(0, (s, eps))
        if at_end(s, t):
            x, scale = first_order_sde(x, s, t, denoised, eta)
        else:
            h = t.lam - s.lam
            nodes = usable(history, order_at(step, len(points) - 1, max_order, lower_order_final))
            frozen = math.expm1(h) * eps
            if len(nodes) == 2:
                d1, _ = differences(nodes, h)
                frozen = (
                    frozen + (math.expm1(h) / 2 if variant == "midpoint" else h * phi(2, h)) * d1
                )
            x = t.alpha / s.alpha * x - (1 + eta) * t.sigma * frozen
            scale = t.sigma * math.sqrt(eta * math.expm1(2 * h))
        if s_noise * scale > 0:
            x = x + s_noise * scale * noise(step, 0)
    return x
