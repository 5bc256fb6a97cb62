"""STORK as loops over its stages, with states and slopes for numbers."""

import math

import numpy as np

from .common import Array, Denoiser, Noise, first_order, steps
from .exponential import flows, scaled


def newton(nodes, values):
    """The polynomial through values, by divided differences."""
    table = list(values)
    for width in range(1, len(nodes)):
        for i in range(len(nodes) - 1, width - 1, -1):
            table[i] = (table[i] - table[i - 1]) / (nodes[i] - nodes[i - width])

    def polynomial(u):
        made = table[-1]
        for node, value in zip(reversed(nodes[:-1]), reversed(table[:-1]), strict=True):
            made = value + (u - node) * made
        return made

    return polynomial


def rkg2(field, y: Array, h: float, s: int, published: bool) -> Array:
    """Skaras et al. 2021, eqs. of RKG2, over y' = field(y, c)."""
    b = [1, 1 / 3] + [
        4 * (j - 1) * (j + 4) / (3 * j * (j + 1) * (j + 2) * (j + 3)) for j in range(2, s + 1)
    ]
    a = [1 - (j + 1) * (j + 2) / 2 * b[j] for j in range(s + 1)]
    w = 6 / ((s + 4) * (s - 1))
    f0 = field(y, 0.0)
    states, c = [y, y + w * h * f0], [0.0, w]
    for j in range(2, s + 1):
        mu, nu = (2 * j + 1) / j * b[j] / b[j - 1], -(j + 1) / j * b[j] / b[j - 2]
        mu_tilde = mu * w
        place = c[j - 1]
        if published:
            place = ((j - 1) ** 2 + (j - 1) - 2 if j > 2 else 4 / 3) / (s**2 + s - 2)
        f = field(states[j - 1], place)
        rest = -mu_tilde * a[j - 1]
        states.append(
            mu * states[j - 1]
            + nu * states[j - 2]
            + (1 - mu - nu) * y
            + mu_tilde * h * f
            + rest * h * f0
        )
        c.append(mu * c[j - 1] + nu * c[j - 2] + mu_tilde + rest)
    return states[-1]


def stork(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, schedule, max_order=2, taylor=2,
    stages=50, start="euler", published=False, coordinates="auto",
) -> Array:  # fmt: skip
    """Tan et al. 2025. "time" is for the schedules that have beta(t), or no drift and a ratio_rate(t)."""
    continuous = not hasattr(schedule, "alpha_bar")
    if coordinates == "auto" and not flows(points, "auto"):
        coordinates = "time" if max_order == 2 and continuous else "edm"
    by_time, flow = coordinates == "time", flows(points, coordinates)
    past = []

    def u_of(p):
        return p.t if by_time else scaled(p, flow)[1]

    def call(x, p):
        scale = p.alpha if by_time else scaled(p, flow)[0]
        return (x - scale * denoiser(x, p)) / p.sigma

    def moved(x, s, t, calls):
        u, end = u_of(s), u_of(t)
        slope = newton([node for node, _ in calls], [m for _, m in calls])
        if max_order == 4:
            nodes, weights = np.polynomial.legendre.leggauss(6)
            mean = sum(
                w / 2 * slope(u + (end - u) * (1 + n) / 2)
                for n, w in zip(nodes, weights, strict=True)
            )
            made = x / scaled(s, flow)[0] + (end - u) * mean
            return scaled(t, flow)[0] * made
        if by_time:

            def field(y, c):
                at = u + c * (end - u)
                drift = -schedule.beta(at) / 2 if hasattr(schedule, "beta") else 0.0
                alpha = float(schedule.alpha(at))
                return drift * y + alpha * schedule.ratio_rate(at) * slope(at)

            return rkg2(field, x, end - u, stages, published)
        made = rkg2(
            lambda y, c: slope(u + c * (end - u)),
            x / scaled(s, flow)[0],
            end - u,
            stages,
            published,
        )
        return scaled(t, flow)[0] * made

    for step, s, t in steps(points):
        finite = t.sigma > 0 if by_time or not flow else True
        if coordinates == "edm" and flow is False:
            finite = s.alpha > 0
        m = call(x, s)
        calls = [(u_of(s), m), *past][: taylor + 1]
        if not finite or (s.alpha == 0 and not flow):
            x = first_order(x, s, t, (x - s.sigma * m) / s.alpha if s.alpha else denoiser(x, s))
        elif step == 0 and start == "half":
            if by_time:
                middle = schedule.point((s.t + t.t) / 2)
            else:
                level = (u_of(s) + u_of(t)) / 2
                middle = schedule.point_at_lam(-math.log(level / (1 - level) if flow else level))
            half = moved(x, s, middle, calls)
            x = moved(half, middle, t, [(u_of(middle), call(half, middle)), *calls])
        else:
            x = moved(x, s, t, calls)
        if math.isfinite(u_of(s)):
            past = calls
    return x
