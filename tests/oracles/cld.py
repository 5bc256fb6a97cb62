"""CLD in float64 from its equations: kernels by integration, samplers as loops (Dockhorn et al. 2022).

A sampler is NAME(law, score, times, x, v, noise, denoise=False, **options) -> (x, v) of a solver's name. A
score is a function (x, v, t) -> s_v. Times fall; with `denoise` the last step is that to t = 0.
"""

import itertools
import math
from functools import cache, partial
from typing import NamedTuple

import numpy as np


class Law(NamedTuple):
    """mass M, gamma (v0's variance in units of M), beta(t) = beta0 + beta1 t, numerical eps."""

    mass: float = 0.25
    gamma: float = 0.04
    beta0: float = 4.0
    beta1: float = 0.0
    eps: float = 0.0

    @property
    def friction(self):
        return 2.0 * math.sqrt(self.mass)

    def beta(self, t):
        return self.beta0 + self.beta1 * t

    @property
    def drift(self):
        """The forward drift of (x, v) in units of beta."""
        return np.array([[0.0, 1.0 / self.mass], [-1.0, -self.friction / self.mass]])


def runge_kutta(rate, value, start, end, steps=1000):
    """Classical RK4 of d value / dt = rate(t, value)."""
    h = (end - start) / steps
    for i in range(steps):
        t = start + i * h
        a = rate(t, value)
        b = rate(t + h / 2, value + h / 2 * a)
        c = rate(t + h / 2, value + h / 2 * b)
        value = value + h / 6 * (a + 2 * b + 2 * c + rate(t + h, value + h * c))
    return value


@cache
def forward(law, t, x0_variance=0.0):
    """Weights of x0 in the means of (x, v), and the covariance, by integrating the moment equations."""
    noise = np.diag([0.0, 2.0 * law.friction])

    def rate(s, moments):
        mean, covariance = moments[:, 0], moments[:, 1:]
        f = law.beta(s) * law.drift
        spread = f @ covariance + covariance @ f.T + law.beta(s) * noise
        return np.column_stack([f @ mean, spread])

    first = np.diag([x0_variance, law.gamma * law.mass])
    moments = runge_kutta(rate, np.column_stack([[1.0, 0.0], first]), 0.0, t)
    return moments[:, 0], moments[:, 1:] + law.eps * np.eye(2)


@cache
def half_step(law, b):
    """Matrix and covariance of dx = -v / M, dv = x - Gamma v / M + sqrt(2 Gamma) dw over a time b."""
    a = np.array([[0.0, -1.0 / law.mass], [1.0, -law.friction / law.mass]])
    noise = np.diag([0.0, 2.0 * law.friction])

    def rate(_, both):
        mean, covariance = both[:, :2], both[:, 2:]
        return np.column_stack([a @ mean, a @ covariance + covariance @ a.T + noise])

    both = runge_kutta(rate, np.column_stack([np.eye(2), np.zeros((2, 2))]), 0.0, b, 300)
    return both[:, :2], both[:, 2:]


def integral(law, high, low):
    return (high - low) * law.beta(0.5 * (high + low))


def denoised(law, x, v, t):
    return x - t * law.beta(t) * v / law.mass


def cld_em(law, score, times, x, v, noise, denoise=False):
    for step, (s, t) in enumerate(itertools.pairwise(times)):
        d, beta = s - t, law.beta(s)
        pull = x + law.friction * v / law.mass + 2.0 * law.friction * score(x, v, s)
        kick = math.sqrt(2.0 * law.friction * beta * d) * noise(step, 0)
        x, v = x - d * beta * v / law.mass, v + d * beta * pull + kick
    return (denoised(law, x, v, times[-1]) if denoise else x), v


def cld_ode(law, score, times, x, v, noise=None, denoise=False):
    def rate(x, v, t):
        pull = x + law.friction * (v / law.mass + score(x, v, t))
        return -law.beta(t) * v / law.mass, law.beta(t) * pull

    for s, t in itertools.pairwise(times):
        d = s - t
        a, b = rate(x, v, s)
        c, e = rate(x + d * a, v + d * b, t)
        x, v = x + d / 2 * (a + c), v + d / 2 * (b + e)
    return (denoised(law, x, v, times[-1]) if denoise else x), v


def euler_kick(law, score, s, t, x, v):
    """The score part as published: beta and score at the start."""
    return v + 2.0 * law.friction * law.beta(s) * (s - t) * (score(x, v, s) + v / law.mass)


def mid_kick(law, score, s, t, x, v):
    a = 2.0 * law.friction * integral(law, s, t)
    return v + a * (score(x, v, 0.5 * (s + t)) + v / law.mass)


def mixed_kick(law, score, s, t, x, v):
    """-v / Svv + v / M by its exponential, what is left of the score frozen."""
    middle = 0.5 * (s + t)
    svv = forward(law, middle)[1][1, 1]
    z = 2.0 * law.friction * integral(law, s, t) * (1.0 / law.mass - 1.0 / svv)
    left = (score(x, v, middle) + v / svv) / (1.0 / law.mass - 1.0 / svv)
    return math.exp(z) * v + math.expm1(z) * left


def midpoint_kick(law, score, s, t, x, v):
    """The same with what is left at the midpoint of the score part."""
    middle = 0.5 * (s + t)
    svv = forward(law, middle)[1][1, 1]
    kappa = 1.0 / law.mass - 1.0 / svv
    z = 2.0 * law.friction * integral(law, s, t) * kappa
    left = (score(x, v, middle) + v / svv) / kappa
    half = math.exp(z / 2) * v + math.expm1(z / 2) * left
    left = (score(x, half, middle) + half / svv) / kappa
    return math.exp(z) * v + math.expm1(z) * left


def exact_kick(law, score, s, t, x, v, powers=7):
    """The flow of what is linear in v, with J = d s_v / dv + 1 / M: v + integral of e^(J b) db (s_v + v / M).

    score   has d s_v / dv, symmetric [..., d, d], as `slope`
    powers  of J - kappa that the exponential's series about kappa = 1 / M - 1 / Svv takes
    """
    middle = 0.5 * (s + t)
    a = 2.0 * law.friction * integral(law, s, t)
    kappa = 1.0 / law.mass - 1.0 / forward(law, middle)[1][1, 1]
    rates, axes = np.linalg.eigh(score.slope(x, v, middle) + np.eye(v.shape[-1]) / law.mass)
    b, weights = np.polynomial.legendre.leggauss(30)
    b, rest = (b + 1.0) / 2.0 * a, rates[..., None] - kappa
    terms = sum((rest * b) ** k / math.factorial(k) for k in range(powers + 1))
    size = (np.exp(kappa * b) * terms) @ (weights * a / 2.0)
    pull = score(x, v, middle) + v / law.mass
    along = np.einsum("...ij,...i->...j", axes, pull) * size
    return v + np.einsum("...ij,...j->...i", axes, along)


def splitting(kick, law, score, times, x, v, noise, denoise=False, published=False):
    """Half flow, kick, half flow; `published` integrates beta over the first half twice."""

    def flow(x, v, b, z):
        a, covariance = half_step(law, b)
        lower = np.linalg.cholesky(covariance)
        x, v = a[0, 0] * x + a[0, 1] * v, a[1, 0] * x + a[1, 1] * v
        return x + lower[0, 0] * z[0], v + lower[1, 0] * z[0] + lower[1, 1] * z[1]

    for step, (s, t) in enumerate(itertools.pairwise(times)):
        middle = 0.5 * (s + t)
        x, v = flow(x, v, integral(law, s, middle), [noise(2 * step, m) for m in range(2)])
        v = kick(law, score, s, t, x, v)
        b = integral(law, s, middle) if published else integral(law, middle, t)
        x, v = flow(x, v, b, [noise(2 * step + 1, m) for m in range(2)])
    return (denoised(law, x, v, times[-1]) if denoise else x), v


def sscs(*run, **options):
    return splitting(euler_kick, *run, **options)


def sscs_mid(*run, **options):
    return splitting(mid_kick, *run, **options)


def sscs_mixed(*run, **options):
    return splitting(mixed_kick, *run, **options)


def sscs2(*run, **options):
    return splitting(midpoint_kick, *run, **options)


def sscs_exact(*run, powers=7, **options):
    return splitting(partial(exact_kick, powers=powers), *run, **options)


def cld_exp(law, score, times, x, v, noise=None, denoise=False, order=3, substeps=120):
    """The probability flow ODE with o of s_v = -v / Svv - o / l replaced, within each step, by the polynomial
    in lam = log(mean of x / its deviation) through its last `order` values at the grid's times."""
    grid = [np.linspace(s, t, 2 * substeps + 1) for s, t in itertools.pairwise(times)]
    laws, reached = (
        {},
        (0.0, (np.array([1.0, 0.0]), np.diag([law.eps, law.gamma * law.mass + law.eps]))),
    )
    for t in sorted({float(t) for part in grid for t in part}):
        reached = t, _onward(law, *reached, t)
        laws[t] = reached[1]

    def known(t):
        """(Svv, l, lam) at a time of the grid."""
        mean, c = laws[float(t)]
        return (
            c[1, 1],
            math.sqrt(c[1, 1] - c[0, 1] ** 2 / c[0, 0]),
            math.log(mean[0] / math.sqrt(c[0, 0])),
        )

    history = []
    for step, part in enumerate(grid):
        svv, deviation, lam = known(part[0])
        history = [(lam, -deviation * (score(x, v, times[step]) + v / svv)), *history][:order]

        def rate(t, u, history=history):
            svv, deviation, lam = known(t)
            o = 0.0
            for j, (here, value) in enumerate(history):
                others = [there for i, (there, _) in enumerate(history) if i != j]
                o = o + value * math.prod((lam - there) / (here - there) for there in others)
            s_v = -u[1] / svv - o / deviation
            pull = u[0] + law.friction * (u[1] / law.mass + s_v)
            return np.stack([-law.beta(t) * u[1] / law.mass, law.beta(t) * pull])

        u = np.stack([x, v])
        for a, b, c in zip(part[:-2:2], part[1::2], part[2::2], strict=True):
            h = a - c
            p = rate(a, u)
            q = rate(b, u + h / 2 * p)
            r = rate(b, u + h / 2 * q)
            u = u + h / 6 * (p + 2 * q + 2 * r + rate(c, u + h * r))
        x, v = u
    return (denoised(law, x, v, times[-1]) if denoise else x), v


def _onward(law, start, moments, end):
    """Mean and covariance given x0, from one time to a later one; eps stays in the covariance's diagonal."""
    mean, covariance = moments
    noise, eps = np.diag([0.0, 2.0 * law.friction]), law.eps * np.eye(2)

    def rate(t, both):
        f = law.beta(t) * law.drift
        spread = f @ both[:, 1:] + both[:, 1:] @ f.T + law.beta(t) * noise
        return np.column_stack([f @ both[:, 0], spread])

    count = 40 if start == 0.0 else 2
    both = runge_kutta(rate, np.column_stack([mean, covariance - eps]), start, end, count)
    return both[:, 0], both[:, 1:] + eps
