"""DPM-Solver++ and DPM-Solver singlestep over the points of a run, call by call, as schedulers make them."""

import math

from .common import Array, Denoiser, Noise, at_end, eps_of, first_order, phi, steps


def plan(n: int, order: int, lower_order_final: bool) -> list[int]:
    """Orders of n calls: 1, 2, ... `order`, and so on (Lu et al. 2022a, section 3.4, of DPM-Solver-fast)."""
    made = []
    while n > 0:
        size = min(order, n)
        if n == order > 1 and lower_order_final:
            size = order - 1
        made += range(1, size + 1)
        n -= size
    return made


def dpmpp_singlestep(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    max_order=2,
    variant="midpoint",
    lower_order_final=True,
    begin=0,
    eta=0.0,
    s_noise=1.0,
    fresh=False,
    flipped=False,
) -> Array:
    """On x0 (Lu et al. 2022b). eta > 0 takes (1 + eta) h and one path's noise, or `fresh` for each state.

    flipped has the sign of 1/2 in the last weight of diffusers' "heun" of order 3.
    """
    orders = plan(begin + len(points) - 1, max_order, lower_order_final)[begin:]
    base = made = None
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        if base is None or at_end(base, s) or at_end(s, t):
            orders[step] = 1
        elif step:
            orders[step] = min(orders[step], len(made) + 1)
        else:
            orders[step] = 1
        if orders[step] == 1 or not made:
            base, x_base, made, path = s, x, [], 0.0
        made.append((s, denoised))
        h = t.lam - base.lam
        grown = (1 + eta) * h if eta else h
        d0 = made[0][1]
        decay = math.exp(-eta * h) if eta else 1.0
        x = t.sigma / base.sigma * decay * x_base - t.alpha * math.expm1(-grown) * d0
        if at_end(base, t) and not eta:
            x = first_order(x_base, base, t, d0)
        if len(made) > 1:
            x = x + t.alpha * change(base, t, made, grown, variant, flipped and eta > 0)
        if eta > 0 and t.sigma > 0:
            level = s_noise * t.sigma * math.sqrt(-math.expm1(-2 * eta * h))
            if fresh or (len(made) == 1 and at_end(s, t)):
                x = x + level * noise(step, 0)
            else:  # W over e^(2 eta lam), from 0 at the base, which is 1 there
                before, after = (math.expm1(2 * eta * (p.lam - base.lam)) for p in (s, t))
                path = path + math.sqrt(after - before) * noise(step, 0)
                x = x + level * path / math.sqrt(after)
    return x


def dpm_solver_singlestep(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    max_order=2,
    variant="midpoint",
    lower_order_final=True,
    begin=0,
) -> Array:
    """On eps (Lu et al. 2022a)."""
    orders = plan(begin + len(points) - 1, max_order, lower_order_final)[begin:]
    base, made = None, []
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        known = len(made) if base is not None and not at_end(base, s) else 0
        order = 1 if at_end(s, t) else min(orders[step], known + 1)
        if order == 1:
            base, x_base, made, first = s, x, [], denoised
        made.append((s, eps_of(x, s, denoised)))
        # alpha_t / alpha_s x - sigma_t (e^h - 1) eps, in a form that keeps digits at large h
        x = first_order(x_base, base, t, first)
        if order > 1:
            x = x - t.sigma * change(base, t, made, -(t.lam - base.lam), variant)
    return x


def change(base, t, made, h, variant, flipped=False):
    """h times phi_2 D1 + phi_3 D2 at -h, the factor of alpha_t; for eps, whose h is negative, of -sigma_t.

    D are derivatives at the base times powers of lam_t - lam_base.
    """
    sign = 1 if h > 0 else -1
    (_, first), *later = made
    slopes = [(m - first) * ((t.lam - base.lam) / (at.lam - base.lam)) for at, m in later]
    places = [(at.lam - base.lam) / (t.lam - base.lam) for at, _ in later]
    second = sign * h * phi(2, -h)
    if len(slopes) == 1:
        return (sign * -math.expm1(-h) / 2 if variant == "midpoint" else second) * slopes[0]
    if variant == "midpoint":
        return second * slopes[1]
    # A parabola through three values: slope and half the second derivative at its first.
    bend = (slopes[1] - slopes[0]) / (places[1] - places[0])
    third = sign * h * phi(3, -h)
    if flipped:  # (1 - e^-h - h) / h^2 - 1/2 for + 1/2
        third = third - 1.0
    return second * (slopes[0] - places[0] * bend) + third * 2 * bend
