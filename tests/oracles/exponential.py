"""Exponential Runge-Kutta and Adams-Bashforth, gradient estimation, Heun++ and DPM-Solver++(2S) ancestral."""

import math

import numpy as np

from .common import Array, Denoiser, Noise, at_end, eps_of, first_order, phi, steps
from .one_step import CHURN_LIMIT, ancestral_split, churned


def weights_of(name, nodes, z):
    """(c, A, b) of a method as matrices at z, each from its paper."""
    p = {c: [phi(k, c * z) for k in range(4)] for c in (0.5, 1.0)}
    whole, half = p[1.0], p[0.5]
    four = [whole[1] - 3 * whole[2] + 4 * whole[3], 2 * whole[2] - 4 * whole[3]]
    four = [four[0], four[1], four[1], 4 * whole[3] - whole[2]]
    stages = {"exp_heun": 2, "res_2s": 2, "res_3s": 3, "etdrk3": 3, "hochbruck_ostermann": 5}.get(
        name, 4
    )
    a = np.zeros((stages, stages))
    if stages == 2:
        c2 = 1.0 if name == "exp_heun" else (nodes or (0.5,))[0]
        a[1, 0] = c2 * phi(1, c2 * z)
        return [0.0, c2], a, [whole[1] - whole[2] / c2, whole[2] / c2]
    if name == "res_3s":
        c2, c3 = nodes or (0.5, 1.0)
        gamma = (3 * c3 - 2) * c3 / ((2 - 3 * c2) * c2)
        a[1, 0] = c2 * phi(1, c2 * z)
        a[2, 1] = gamma * c2 * phi(2, c2 * z) + c3**2 / c2 * phi(2, c3 * z)
        a[2, 0] = c3 * phi(1, c3 * z) - a[2, 1]
        third = whole[2] / (gamma * c2 + c3)
        return [0.0, c2, c3], a, [whole[1] - (1 + gamma) * third, gamma * third, third]
    a[1, 0] = half[1] / 2
    if name == "etdrk3":
        a[2, :2] = -whole[1], 2 * whole[1]
        return [0.0, 0.5, 1.0], a, [four[0], 2 * four[1], four[3]]
    if name == "etdrk4":
        # Cox & Matthews 2002, eqs. 26 to 29
        a[2, 1] = half[1] / 2
        a[3, 0], a[3, 2] = half[1] / 2 * (half[0] - 1), half[1]
    if name in ("krogstad", "hochbruck_ostermann"):
        a[2, :2] = half[1] / 2 - half[2], half[2]
        a[3, 0], a[3, 2] = whole[1] - 2 * whole[2], 2 * whole[2]
    if name == "strehmel_weiner":
        a[2, :2] = (half[1] - half[2]) / 2, half[2] / 2
        a[3, :3] = whole[1] - 2 * whole[2], -2 * whole[2], 4 * whole[2]
        return [0.0, 0.5, 0.5, 1.0], a, [four[0], 0.0, 2 * four[1], four[3]]
    if name == "hochbruck_ostermann":
        a[3, 1] = a[3, 2] = whole[2]
        shared = half[2] / 2 - whole[3] + whole[2] / 4 - half[3] / 2
        a[4, 1] = a[4, 2] = shared
        a[4, 3] = half[2] / 4 - shared
        a[4, 0] = half[1] / 2 - 2 * shared - a[4, 3]
        return [0.0, 0.5, 0.5, 1.0, 0.5], a, [four[0], 0.0, 0.0, four[3], 2 * four[1]]
    return [0.0, 0.5, 0.5, 1.0], a, four


def given_weights(tableau, z):
    """The same of a user's table."""
    c = tableau["c"]

    def number(entry, place):
        return sum(w * phi(k, (rest[0] if rest else place) * z) for w, k, *rest in entry or [])

    a = np.zeros((len(c), len(c)))
    for i, row in enumerate(tableau["a"]):
        for j, entry in enumerate(row):
            a[i, j] = number(entry, c[i])
    return c, a, [number(entry, 1.0) for entry in tableau["b"]]


def flows(points, coordinates):
    """Whether a run is solved in flow matching's variables."""
    if coordinates == "auto":
        return all(abs(p[1] + p[2] - 1) < 1e-9 for p in points)
    return coordinates == "flow"


def scaled(p, flow):
    """(scale, level) of a point: of y = x / scale, level eps in y."""
    scale = p.alpha + p.sigma if flow else p.alpha
    return scale, p.sigma / scale if scale else math.inf


def exp_rk(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, schedule, tableau="res_2s",
    nodes=(), coordinates="auto",
) -> Array:  # fmt: skip
    """y' = -y + D in -log level, L = -1 (Hochbruck & Ostermann 2005, eq. 2.1)."""
    flow = flows(points, coordinates)
    for _, s, t in steps(points):
        (scale, level), (scale_t, level_t) = scaled(s, flow), scaled(t, flow)
        if t.sigma == 0 or level == math.inf:
            x = first_order(x, s, t, denoiser(x, s))
            continue
        h = math.log(level / level_t)
        of = (
            weights_of(tableau, nodes, -h)
            if isinstance(tableau, str)
            else given_weights(tableau, -h)
        )
        y, made = x / scale, []
        for place, row in zip(of[0], of[1], strict=True):
            at, at_scale = s, scale
            if place:
                there = level * math.exp(-place * h)
                lam = math.log((1 - there) / there) if flow else -math.log(there)
                at = t if place == 1 else schedule.point_at_lam(lam)
                at_scale = scaled(at, flow)[0]
            inner = math.exp(-place * h) * y + h * sum(
                w * d for w, d in zip(row, made, strict=False)
            )
            made.append(denoiser(at_scale * inner, at))
        x = scale_t * (math.exp(-h) * y + h * sum(w * d for w, d in zip(of[2], made, strict=True)))
    return x


def res_multistep(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, eta=0.0, s_noise=1.0,
    coordinates="auto",
) -> Array:  # fmt: skip
    """RES' second-order multistep method, of a step to `down` and noise behind it."""
    flow, last, reached = flows(points, coordinates), None, None
    for step, s, t in steps(points):
        down, up = ancestral_split(s.ratio, t.ratio, eta) if t.sigma else (0.0, 0.0)
        d, low = denoiser(x, s), t._replace(sigma=t.alpha * down)
        (scale, level), (scale_low, level_low) = scaled(s, flow), scaled(low, flow)
        if level_low == 0 or not reached or math.inf in (last[0], level):
            made = low.sigma / s.sigma * x + (t.alpha - low.sigma / s.sigma * s.alpha) * d
        else:
            h = math.log(level / level_low)
            c2 = math.log(reached / last[0]) / h  # below 0
            b2 = phi(2, -h) / c2
            y = math.exp(-h) * x / scale + h * ((phi(1, -h) - b2) * d + b2 * last[1])
            made = scale_low * y
        x = made + t.alpha * up * s_noise * noise(step, 0) if up else made
        last, reached = (level, d), level_low
    return x


def gradient_estimation(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    gamma=2.0,
    coordinates="auto",
) -> Array:
    """Permenter & Yuan 2024: the step of gamma eps_t + (1 - gamma) eps_{t+1}."""
    flow, last = flows(points, coordinates), None
    for _, s, t in steps(points):
        d = denoiser(x, s)
        (scale, level), (scale_t, level_t) = scaled(s, flow), scaled(t, flow)
        eps = (x - d * scale) / s.sigma
        if t.sigma == 0 or level == math.inf:
            x = first_order(x, s, t, d)
        else:
            mean = eps if last is None else gamma * eps + (1 - gamma) * last
            x = scale_t * (x / scale + (level_t - level) * mean)
        last = eps
    return x


def heunpp2(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, schedule=None, s_churn=0.0,
    s_tmin=0.0, s_tmax=math.inf, s_noise=1.0, churn_limit=CHURN_LIMIT, coordinates="auto",
) -> Array:  # fmt: skip
    """ComfyUI's sample_heunpp2, in x / scale."""
    flow, churn = flows(points, coordinates), (s_tmin, s_tmax, s_noise, churn_limit)
    all_steps = steps(points)
    levels = [scaled(p, flow)[1] for _, s, t in all_steps for p in (s, t)]
    top = max((level for level in levels if level < math.inf), default=0.0)

    def slope(state, at):
        scale, level = scaled(at, flow)
        return (state - denoiser(state * scale, at)) / level

    for step, s, t in all_steps:
        x, s = churned(x, s, step, len(all_steps), noise, schedule, s_churn, *churn)
        scale, level = scaled(s, flow)
        if step == len(all_steps) - 1 or level == math.inf:
            x = first_order(x, s, t, denoiser(x, s))
            continue
        scale_t, level_t = scaled(t, flow)
        y = x / scale
        d = slope(y, s)
        y2 = y + (level_t - level) * d
        d2 = slope(y2, t)
        if step == len(all_steps) - 2:
            w2, w3, d3 = level_t / (2 * top), 0.0, 0.0
        else:
            u = all_steps[step + 1][2]
            level_u = scaled(u, flow)[1]
            d3 = slope(y2 + (level_u - level_t) * d2, u)
            w2, w3 = level_t / (3 * top), level_u / (3 * top)
        x = scale_t * (y + (level_t - level) * ((1 - w2 - w3) * d + w2 * d2 + w3 * d3))
    return x


def euler_overshoot(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    eta=1.0,
    s_noise=1.0,
    relative=False,
) -> Array:
    """The step of Hu et al. 2024 in their t, 0 at noise and 1 at data, where x = t x0 + (1 - t) z."""
    for step, s, t in steps(points):
        now, then = s.alpha / (s.alpha + s.sigma), t.alpha / (t.alpha + t.sigma)
        dt = then - now
        beyond = min(then + eta * (dt / (1 - now) if relative else dt) * (1 - then), 1.0)
        z = x / (s.alpha + s.sigma)
        velocity = (denoiser(x, s) - z) / (1 - now)
        z = z + (beyond - now) * velocity
        a = then / beyond
        b = math.sqrt(max((1 - then) ** 2 - (a * (1 - beyond)) ** 2, 0.0)) if eta else 0.0
        z = a * z + b * s_noise * noise(step, 0) if b else a * z
        x = (t.alpha + t.sigma) * z
    return x


def dpmpp_2s_ancestral(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, schedule, eta=1.0, s_noise=1.0,
    coordinates="auto",
) -> Array:  # fmt: skip
    """k-diffusion's sample_dpmpp_2s_ancestral, and of a flow ComfyUI's, whose noise is dealt by t."""
    flow = flows(points, coordinates)
    for step, s, t in steps(points):
        if t.sigma == 0:
            down = up = 0.0
        elif flow and eta:
            u_t, u_s = scaled(t, flow)[1], scaled(s, flow)[1]
            u = u_t * (1 - eta + eta * u_t / u_s)
            down = u / (1 - u)
            up = math.sqrt(t.ratio**2 - down**2)
        else:
            down, up = ancestral_split(s.ratio, t.ratio, eta) if eta else (t.ratio, 0.0)
        d, low = denoiser(x, s), t._replace(sigma=t.alpha * down)
        if not at_end(s, low):
            low = low._replace(lam=-math.log(down))
            middle = schedule.point_at_lam((s.lam + low.lam) / 2)
            d = denoiser(first_order(x, s, middle, d), middle)
        x = low.alpha * d + low.sigma * eps_of(x, s, d)
        x = x + t.alpha * up * s_noise * noise(step, 0) if up else x
    return x
