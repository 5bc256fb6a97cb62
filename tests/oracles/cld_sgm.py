"""CLD-SGM's samplers (Dockhorn et al. 2022) in its own words: tau runs from 0 to 1 - eps, t = 1 - tau.

f = 2 / sqrt(m_inv) is Gamma and g = 1 / f. model(u, t) is the network of u = [x, v].
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class CLDSDE:
    m_inv: float = 4.0
    gamma: float = 0.04
    beta0: float = 4.0
    beta1: float = 0.0
    numerical_eps: float = 1e-9
    mixed: bool = True

    @property
    def f(self):
        return 2 / math.sqrt(self.m_inv)

    def beta(self, t):
        return self.beta0 + self.beta1 * t

    def beta_int(self, t):
        return self.beta0 * t + 0.5 * self.beta1 * t**2

    def variances(self, t):
        """xx, xv, vv of the kernel, the first v averaged over (paper, appendix B.1)."""
        b, g, v0 = self.beta_int(t), 1 / self.f, self.gamma / self.m_inv
        e = math.exp(-4 * b * g)
        xx = math.expm1(4 * b * g) - 4 * b * g - 8 * b**2 * g**2 + 16 * g**4 * b**2 * v0
        xv = 4 * g**2 * b * v0 + 4 * g * b**2 - 8 * g**3 * b**2 * v0
        vv = self.f**2 * math.expm1(4 * b * g) / 4 + self.f * b - 2 * b**2
        vv += v0 * (1 - 4 * g * b + 4 * g**2 * b**2)
        return e * xx + self.numerical_eps, e * xv, e * vv + self.numerical_eps

    def score(self, model, u, t):
        """s_v = -v / vv - ell o."""
        xx, xv, vv = self.variances(t)
        ell = math.sqrt(xx / (xx * vv - xv**2))
        v = np.split(u, 2, axis=1)[1]
        return (-v / vv if self.mixed else 0.0) - ell * model(u, t)


def taus(n, eps, striding):
    t = np.linspace(0, 1 - eps, n + 1)
    return t if striding == "linear" else ((1 - eps) * (1 - (t / (1 - eps)) ** 2))[::-1]


def em_step(sde, model, u, t, d):
    """The mean, and the scale of v's noise."""
    x, v = np.split(u, 2, axis=1)
    beta = sde.beta(t)
    new_v = v + d * beta * (x + sde.f * sde.m_inv * v + 2 * sde.f * sde.score(model, u, t))
    mean = np.concatenate((x - d * beta * sde.m_inv * v, new_v), axis=1)
    return mean, math.sqrt(2 * sde.f * beta * d)


def em(sde, model, u, n, noise, eps=1e-3, striding="quadratic"):
    """n counts the final denoising. noise(i) is of v in step i."""
    tau = taus(n - 1, eps, striding)
    for i in range(n - 1):
        mean, scale = em_step(sde, model, u, 1 - tau[i], tau[i + 1] - tau[i])
        x, v = np.split(mean, 2, axis=1)
        u = np.concatenate((x, v + scale * noise(i)), axis=1)
    return np.split(em_step(sde, model, u, eps, eps)[0], 2, axis=1)[0]


def analytic(sde, u, tau, d, z):
    """Half of the flow that calls no network, from tau on; z are the normals of x and of v."""
    b, g = sde.beta_int(1 - (tau + d)) - sde.beta_int(1 - tau), 1 / sde.f
    x, v = np.split(u, 2, axis=1)
    c, e = math.exp(2 * g * b), math.exp(4 * g * b)
    mean_x = c * ((1 - 2 * g * b) * x + 4 * g**2 * b * v)
    mean_v = c * (-b * x + (1 + 2 * g * b) * v)
    xx = e * (math.expm1(-4 * g * b) + 4 * g * b - 8 * g**2 * b**2)
    xv = -e * 4 * g * b**2
    vv = e * (sde.f**2 * math.expm1(-4 * g * b) / 4 - sde.f * b - 2 * b**2)
    l11 = math.sqrt(xx)
    l21 = xv / l11
    new_v = mean_v + l21 * z[0] + math.sqrt(vv - l21**2) * z[1]
    return np.concatenate((mean_x + l11 * z[0], new_v), axis=1)


def splitting(sde, model, u, n, noise, eps=1e-3, striding="quadratic"):
    """noise(h) is of half h of the flow, two a step; both begin at the step's own tau, as published."""
    tau = taus(n - 1, eps, striding)
    for i in range(n - 1):
        d, t = tau[i + 1] - tau[i], 1 - tau[i]
        u = analytic(sde, u, tau[i], d / 2, noise(2 * i))
        x, v = np.split(u, 2, axis=1)
        v = v + 2 * sde.f * (sde.score(model, u, t) + sde.m_inv * v) * sde.beta(t) * d
        u = analytic(sde, np.concatenate((x, v), axis=1), tau[i], d / 2, noise(2 * i + 1))
    return np.split(em_step(sde, model, u, eps, eps)[0], 2, axis=1)[0]
