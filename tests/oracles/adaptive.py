"""Embedded pairs with steps of their own: Runge-Kutta (Hairer, Norsett & Wanner 1993, II.4) and DPM-Solver
(Lu et al. 2022, appendix C, with k-diffusion's controller). One sample, float64.

Each returns the end, the points of its steps, how many of them were rejected and the calls made.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .common import Array, Denoiser, Point

At = Callable[[float], Point]  # of sigma / alpha


class Walk(NamedTuple):
    x: Array
    points: list[Point]
    rejected: int
    calls: int


TABLEAUS = {  # c, a, b, and b - b* (Butcher's)
    "rk23": (
        [0, 1 / 2, 3 / 4, 1],
        [[], [1 / 2], [0, 3 / 4], [2 / 9, 1 / 3, 4 / 9]],
        [-5 / 72, 1 / 12, 1 / 9, -1 / 8],
        3,
    ),
    "rk45": (
        [0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1],
        [
            [],
            [1 / 5],
            [3 / 40, 9 / 40],
            [44 / 45, -56 / 15, 32 / 9],
            [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
            [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
            [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
        ],
        [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40],
        5,
    ),
}


def runge_kutta(
    denoiser: Denoiser, x: Array, start: Point, end: Point, at: At, pair: str, rtol: float, atol: float,
    h: float,
) -> Walk:  # fmt: skip
    """dy / du = eps - x0 for y = x / (alpha + sigma) and u = sigma / (alpha + sigma), from u to 0."""
    nodes, a, gap, order = TABLEAUS[pair]
    calls = rejected = 0

    def share(p):
        return p.sigma / (p.alpha + p.sigma)

    def velocity(y, p):
        nonlocal calls
        calls += 1
        state = (p.alpha + p.sigma) * y
        x0 = denoiser(state, p)
        return (state - p.alpha * x0) / p.sigma - x0

    s, y, points, most = start, x / (start.alpha + start.sigma), [], 10.0
    k0 = velocity(y, s)
    while s != end:
        u = share(s)
        h = min(h, u - share(end))
        t = end if u - h <= share(end) + 1e-12 else at((u - h) / (1 - u + h))
        ks = [k0]
        for c, weights in zip(nodes[1:], a[1:], strict=True):
            p = t if c == 1 else at((u - c * h) / (1 - u + c * h))
            state = y - h * sum(w * k for w, k in zip(weights, ks, strict=True))
            ks.append(velocity(state, p))
        before, after = (s.alpha + s.sigma) * y, (t.alpha + t.sigma) * state
        error = (t.alpha + t.sigma) * h * sum(e * k for e, k in zip(gap, ks, strict=True))
        size = atol + rtol * np.maximum(abs(before), abs(after))
        norm = math.sqrt(np.mean((error / size) ** 2))
        factor = min(most, max(0.2, 0.9 * norm ** (-1 / order))) if norm else most
        h *= factor
        if norm > 1:
            rejected, most = rejected + 1, 1.0
            continue
        s, y, k0, most = t, state, ks[-1], 10.0
        points.append(t)
    return Walk((s.alpha + s.sigma) * y, points, rejected, calls)


def dpm_adaptive(
    denoiser: Denoiser, x: Array, start: Point, end: Point, at: At, order=3, rtol=0.05, atol=0.0078,
    h=0.05, pcoeff=0.0, icoeff=1.0, dcoeff=0.0, safety=0.81,
) -> Walk:  # fmt: skip
    """In x / alpha and sigma / alpha, in which DPM-Solver is k-diffusion's; errors are those of x."""
    calls = rejected = 0
    b = (pcoeff + icoeff + dcoeff) / order, -(pcoeff + 2 * dcoeff) / order, dcoeff / order
    inverses: list[float] = []
    s, z, points, low_before = start, x / start.alpha, [], x

    def eps(z, p):
        nonlocal calls
        calls += 1
        return (z - denoiser(p.alpha * z, p)) / p.ratio

    e0 = eps(z, s)
    while s != end:
        t = end if s.lam + h >= end.lam - 1e-9 else at(math.exp(-s.lam - h))
        step = t.lam - s.lam
        g = t.ratio
        one = z - g * math.expm1(step) * e0
        r1 = 1 / order
        mid = at(math.exp(-s.lam - r1 * step))
        e1 = eps(z - mid.ratio * math.expm1(r1 * step) * e0, mid)
        two = one - g / (2 * r1) * math.expm1(step) * (e1 - e0)
        low, high = one, two
        if order == 3:
            r2 = 2 / 3
            far = at(math.exp(-s.lam - r2 * step))
            k = r2 * step
            bend = far.ratio * r2 / r1 * (math.expm1(k) / k - 1) * (e1 - e0)
            e2 = eps(z - far.ratio * math.expm1(k) * e0 - bend, far)
            low, high = two, one - g / r2 * (math.expm1(step) / step - 1) * (e2 - e0)
        size = np.maximum(atol, rtol * np.maximum(abs(t.alpha * low), abs(low_before)))
        inverse = 1 / (math.sqrt(np.mean((t.alpha * (low - high) / size) ** 2)) + 1e-8)
        inverses = inverses or [inverse] * 3
        inverses[0] = inverse
        factor = 1 + math.atan(math.prod(u**p for u, p in zip(inverses, b, strict=True)) - 1)
        h *= factor
        if factor < safety:
            rejected += 1
            continue
        inverses = [inverse, inverse, inverses[1]]
        s, z, low_before = t, high, t.alpha * low
        points.append(t)
        if s != end:
            e0 = eps(z, s)
    return Walk(s.alpha * z, points, rejected, calls)
