"""DPM-Solver (singlestep, noise prediction) and DPM-Solver++ (multistep, data prediction)."""

import math

from .common import (
    Array,
    Denoiser,
    Noise,
    Point,
    at_end,
    differences,
    eps_of,
    first_order,
    order_at,
    phi,
    steps,
    usable,
)
from .one_step import ancestral_split


def dpm_solver_2(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, schedule, r1=0.5
) -> Array:
    """Singlestep DPM-Solver-2 (Lu et al. 2022a, Alg. 1 and its general r1)."""
    for _, s, t in steps(points):
        x = singlestep(2, denoiser, x, s, t, schedule, r1)
    return x


def dpm_solver_3(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    schedule,
    r1=1 / 3,
    r2=2 / 3,
) -> Array:
    """Singlestep DPM-Solver-3 (Lu et al. 2022a, Alg. 2)."""
    for _, s, t in steps(points):
        x = singlestep(3, denoiser, x, s, t, schedule, r1, r2)
    return x


def dpm_fast(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    schedule,
    rest=2,
    eta=0.0,
    s_noise=1.0,
) -> Array:
    """k-diffusion's sample_dpm_fast of n = 3 (steps - 1) + rest calls; the plan of orders is that of
    DPM-Solver-fast (Lu et al. 2022a, section 3.4)."""
    m, last = len(points) - 1, points[-1]
    orders = [3] * (m - 2) + [2, 1] if rest == 0 else [3] * (m - 1) + [rest]
    for step, s, t in steps(points):
        down, up = ancestral_split(s.ratio, t.ratio, eta)
        if eta > 0 and down < last.ratio:
            down, up = last.ratio, math.sqrt(t.ratio**2 - last.ratio**2)
        low = Point(t.t, t.alpha, t.alpha * down, math.inf if down == 0 else -math.log(down))
        # A run of one step has the order of its last.
        x = singlestep(orders[step - m], denoiser, x, s, low, schedule)
        if s_noise * up > 0:
            x = x + t.alpha * s_noise * up * noise(step, 0)
    return x


def singlestep(order, denoiser, x, s, t, schedule, r1=None, r2=2 / 3):
    """One step of DPM-Solver-1, -2 or -3 from s to t."""
    denoised = denoiser(x, s)
    if order == 1 or at_end(s, t):
        return first_order(x, s, t, denoised)
    h, eps = t.lam - s.lam, eps_of(x, s, denoised)
    r1 = r1 or 1 / order
    u1 = schedule.point_at_lam(s.lam + r1 * h)
    # DPM-Solver-1, alpha_u / alpha_s x - sigma_u (e^rh - 1) eps, in a form that keeps digits at large h.
    x1, base = first_order(x, s, u1, denoised), first_order(x, s, t, denoised)
    d1 = eps_of(x1, u1, denoiser(x1, u1)) - eps
    if order == 2:
        return base - t.sigma * math.expm1(h) / (2 * r1) * d1
    u2 = schedule.point_at_lam(s.lam + r2 * h)
    curve = r2 * h * phi(2, r2 * h)  # expm1(r2 h) / (r2 h) - 1
    x2 = first_order(x, s, u2, denoised) - u2.sigma * r2 / r1 * curve * d1
    d2 = eps_of(x2, u2, denoiser(x2, u2)) - eps
    return base - t.sigma / r2 * h * phi(2, h) * d2  # h phi_2 = expm1(h)/h - 1


def dpmpp_2m(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    variant="midpoint",
    lower_order_final=True,
) -> Array:
    """DPM-Solver++(2M) (Lu et al. 2022b, Alg. 2; "heun" is the Taylor form of its appendix)."""
    history = []
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        history.insert(0, (s, denoised))
        order = order_at(step, len(points) - 1, 2, lower_order_final)
        x = first_order(x, s, t, denoised)
        nodes = usable(history, order)
        if len(nodes) == 2 and not at_end(s, t):
            h = t.lam - s.lam
            d1, _ = differences(nodes, h)
            x = x + t.alpha * second_order_weight(variant, h) * d1
    return x


def second_order_weight(variant: str, h: float) -> float:
    """The factor of alpha_t D1, where D1 is the change of x0 over one h."""
    if variant == "midpoint":
        return -math.expm1(-h) / 2
    if variant == "heun":
        return h * phi(2, -h)  # expm1(-h)/h + 1
    raise ValueError(f"variant={variant!r}: use 'midpoint' or 'heun'")


def dpmpp_3m(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    kappa=1.0,
    start="euler",
    variant="midpoint",
    lower_order_final=True,
    euler_at_final=False,
) -> Array:
    """DPM-Solver++(3M); kappa = 1 as everyone runs it, 2 as the Taylor expansion needs it.

    start="heun" takes the first step with the line in lam through the predictions at both its ends, the
    second at the end of Euler's step. Its order-2 steps (the second and, with lower_order_final, the second
    last) are 2M's of the variant.
    """
    history = []
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        history.insert(0, (s, denoised))
        order = order_at(step, len(points) - 1, 3, lower_order_final)
        if euler_at_final and step == len(points) - 2:
            order = 1
        x = first_order(x, s, t, denoised)
        nodes = usable(history, order)
        h = t.lam - s.lam
        if start == "heun" and step == 0 and not at_end(s, t):
            x = x + t.alpha * h * phi(2, -h) * (denoiser(x, t) - denoised)
        if len(nodes) == 1 or at_end(s, t):
            continue
        d1, d2 = differences(nodes, h, kappa)
        if len(nodes) == 2:
            x = x + t.alpha * second_order_weight(variant, h) * d1
        else:  # p2 = h phi_2(-h), -p3 = h phi_3(-h)
            x = x + t.alpha * h * (phi(2, -h) * d1 + phi(3, -h) * d2)
    return x


def dpm_solver_2m(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    variant="midpoint",
    lower_order_final=True,
) -> Array:
    """DPM-Solver of two calls on eps (Lu et al. 2022a, as the authors' code runs it multistep)."""
    orders = [order_at(k, len(points) - 1, 2, lower_order_final) for k in range(len(points) - 1)]
    return on_eps(denoiser, points, x, orders, 1.0, "euler", variant)


def dpm_solver_3m(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    kappa=1.0,
    start="euler",
    variant="midpoint",
    lower_order_final=True,
    euler_at_final=False,
) -> Array:
    """DPM-Solver of three calls on eps; options as of dpmpp_3m."""
    orders = [order_at(k, len(points) - 1, 3, lower_order_final) for k in range(len(points) - 1)]
    if euler_at_final:
        orders[-1] = 1
    return on_eps(denoiser, points, x, orders, kappa, start, variant)


def on_eps(denoiser, points, x, orders, kappa, start, variant):
    """x_t = alpha_t / alpha_s x - sigma_t h (phi_1 E0 + phi_2 D1 + phi_3 D2) at h, D of the past eps."""
    history = []
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        eps, euler = eps_of(x, s, denoised), first_order(x, s, t, denoised)
        history.insert(0, (s, eps))
        x = euler
        if at_end(s, t):
            continue
        h, nodes = t.lam - s.lam, usable(history, orders[step])
        second = h * phi(2, h)
        if start == "heun" and step == 0:
            x = x - t.sigma * second * (eps_of(euler, t, denoiser(euler, t)) - eps)
        elif len(nodes) > 1:
            d1, d2 = differences(nodes, h, kappa)
            if len(nodes) == 2 and variant == "midpoint":
                second = math.expm1(h) / 2
            x = x - t.sigma * (second * d1 + h * phi(3, h) * d2)
    return x
