"""Schedules, time grids and data distributions whose optimal denoiser is known in closed form."""

import math

import numpy as np

from .common import Point

# --- schedules -------------------------------------------------------------------------------


class Schedule:
    """alpha(t), sigma(t) and what follows from them. Subclasses give the four methods below."""

    def alpha(self, t):
        raise NotImplementedError

    def sigma(self, t):
        raise NotImplementedError

    def t_of_lam(self, lam):
        raise NotImplementedError

    def ratio_rate(self, t):
        """d(sigma / alpha) / dt, which DEIS integrates against."""
        raise NotImplementedError

    def lam(self, t):
        with np.errstate(divide="ignore"):
            return np.log(self.alpha(t)) - np.log(self.sigma(t))

    def point(self, t) -> Point:
        return Point(float(t), float(self.alpha(t)), float(self.sigma(t)), float(self.lam(t)))

    def point_at_lam(self, lam) -> Point:
        t = self.t_of_lam(lam)
        return Point(float(t), float(self.alpha(t)), float(self.sigma(t)), float(lam))

    def clean(self) -> Point:
        """The noise-free end, which samplers append even where sigma(0) > 0."""
        return Point(0.0, 1.0, 0.0, math.inf)


class VPLinear(Schedule):
    """Variance preserving with beta(t) = b0 + t (b1 - b0) on [0, 1] (Song et al. 2021)."""

    def __init__(self, b0=0.1, b1=20.0):
        self.b0, self.slope = b0, b1 - b0

    def log_alpha(self, t):
        return -(t**2) * self.slope / 4 - t * self.b0 / 2

    def t_of_log_alpha(self, log_alpha):
        q = -4 * self.slope * log_alpha
        return q / ((np.sqrt(self.b0**2 + q) + self.b0) * self.slope)

    def beta(self, t):
        return self.b0 + t * self.slope

    def alpha(self, t):
        return np.exp(self.log_alpha(t))

    def sigma(self, t):
        return np.sqrt(-np.expm1(2 * self.log_alpha(t)))

    def lam(self, t):
        with np.errstate(divide="ignore"):  # expm1 keeps the digits that alpha -> 1 loses
            return -np.log(np.expm1(-2 * self.log_alpha(t))) / 2

    def t_of_lam(self, lam):
        return self.t_of_log_alpha(-np.logaddexp(0, -2 * lam) / 2)

    def ratio_rate(self, t):
        return self.beta(t) / 2 / (self.alpha(t) * self.sigma(t))


class SubVP(VPLinear):
    """alpha of VP-linear, sigma = 1 - alpha^2, hence ratio = -2 sinh(log alpha)."""

    def sigma(self, t):
        return -np.expm1(2 * self.log_alpha(t))

    def lam(self, t):
        with np.errstate(divide="ignore"):
            return -np.log(-2 * np.sinh(self.log_alpha(t)))

    def t_of_lam(self, lam):
        return self.t_of_log_alpha(-np.arcsinh(np.exp(-lam) / 2))

    def ratio_rate(self, t):
        return self.beta(t) * np.cosh(self.log_alpha(t))


class VE(Schedule):
    """Variance exploding: sigma(t) = smin (smax / smin)^t."""

    def __init__(self, smin=0.01, smax=50.0):
        self.smin, self.log_range = smin, math.log(smax / smin)

    def alpha(self, t):
        return np.ones_like(np.asarray(t, float))

    def sigma(self, t):
        return self.smin * np.exp(self.log_range * np.asarray(t, float))

    def t_of_lam(self, lam):
        return (-lam - math.log(self.smin)) / self.log_range

    def ratio_rate(self, t):
        return self.log_range * self.sigma(t)


class EDM(Schedule):
    """alpha = 1, sigma = t (Karras et al. 2022)."""

    def alpha(self, t):
        return np.ones_like(np.asarray(t, float))

    def sigma(self, t):
        return np.asarray(t, float)

    def t_of_lam(self, lam):
        return np.exp(-lam)

    def ratio_rate(self, t):
        return np.ones_like(np.asarray(t, float))


class Flow(Schedule):
    """Flow matching: alpha = 1 - t, sigma = t."""

    def alpha(self, t):
        return 1 - np.asarray(t, float)

    def sigma(self, t):
        return np.asarray(t, float)

    def t_of_lam(self, lam):
        return np.exp(-np.logaddexp(0, lam))

    def ratio_rate(self, t):
        return (1 - np.asarray(t, float)) ** -2.0


class DDPMTable(Schedule):
    """A discrete VP table of alpha_bar; between timesteps lam is linear in the timestep."""

    def __init__(self, alpha_bar):
        self.alpha_bar = np.asarray(alpha_bar, float)
        self.table = (np.log(self.alpha_bar) - np.log1p(-self.alpha_bar)) / 2
        self.timesteps = np.arange(len(self.table))

    def lam(self, t):
        return self._inside(t, self.timesteps, self.table)

    def alpha(self, t):
        return np.exp(-np.logaddexp(0, -2 * self.lam(t)) / 2)

    def sigma(self, t):
        return np.exp(-np.logaddexp(0, 2 * self.lam(t)) / 2)

    def t_of_lam(self, lam):
        return self._inside(lam, self.table[::-1], self.timesteps[::-1])

    def point_at_lam(self, lam) -> Point:
        """Beyond the table a level has the nearest timestep, and stays itself."""
        t = self.t_of_lam(np.clip(lam, self.table[-1], self.table[0]))
        alpha, sigma = (np.exp(-np.logaddexp(0, sign * 2 * lam) / 2) for sign in (-1, 1))
        return Point(float(t), float(alpha), float(sigma), float(lam))

    def clean(self) -> Point:
        return Point(-1.0, 1.0, 0.0, math.inf)

    @staticmethod
    def _inside(at, xs, ys):
        if np.min(at) < xs[0] or np.max(at) > xs[-1]:
            raise ValueError(f"{at} is outside the table's range [{xs[0]}, {xs[-1]}]")
        return np.interp(at, xs, ys)


def ddpm_linear(n=1000, first=1e-4, last=0.02) -> DDPMTable:
    return DDPMTable(np.cumprod(1 - np.linspace(first, last, n)))


def ddpm_scaled_linear(n=1000, first=0.00085, last=0.012) -> DDPMTable:
    """Linear in sqrt(beta): latent diffusion's "linear"; the defaults are Stable Diffusion's."""
    return DDPMTable(np.cumprod(1 - np.linspace(first**0.5, last**0.5, n) ** 2))


def ddpm_cosine(n=1000) -> DDPMTable:
    def alpha_bar(u):
        return np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2

    i = np.arange(n)
    beta = np.minimum(1 - alpha_bar((i + 1) / n) / alpha_bar(i / n), 0.999)
    return DDPMTable(np.cumprod(1 - beta))


# --- grids -----------------------------------------------------------------------------------


def karras(n, smin=0.002, smax=80.0, rho=7.0):
    """n noise levels, both ends included (Karras et al. 2022, eq. 5)."""
    i = np.linspace(0, 1, n)
    return (smax ** (1 / rho) + i * (smin ** (1 / rho) - smax ** (1 / rho))) ** rho


def edm_points(n, smin=0.002, smax=80.0, rho=7.0):
    """EDM's grid: n Karras levels and a final zero, so n steps."""
    schedule = EDM()
    return [*(schedule.point(sigma) for sigma in karras(n, smin, smax, rho)), schedule.clean()]


def lam_points(schedule, n, t_first=1.0, t_last=1e-3):
    """n steps uniform in lam."""
    lams = np.linspace(schedule.lam(t_first), schedule.lam(t_last), n + 1)
    return [schedule.point_at_lam(lam) for lam in lams]


def karras_points(schedule, n, t_first=1.0, t_last=1e-3):
    """n steps, the ratio spaced as Karras between the two ends; no final zero."""
    ratios = karras(n + 1, np.exp(-schedule.lam(t_last)), np.exp(-schedule.lam(t_first)))
    return [schedule.point_at_lam(-np.log(ratio)) for ratio in ratios]


def t_points(schedule, n, t_first=1.0, t_last=1e-3):
    """n steps uniform in t."""
    return [schedule.point(t) for t in np.linspace(t_first, t_last, n + 1)]


def spaced_timesteps(spacing, n, n_train=1000):
    """The "leading", "trailing" and "linspace" timesteps of DDPM tables, descending."""
    j = np.arange(n)
    if spacing == "leading":
        return (j * (n_train // n))[::-1]
    if spacing == "trailing":
        return np.round(n_train - j * n_train / n).astype(int) - 1
    return np.round(np.linspace(0, n_train - 1, n)).astype(int)[::-1]


def spaced_points(schedule, spacing, n):
    """n steps over a DDPM table, ending at alpha_bar = 1."""
    timesteps = spaced_timesteps(spacing, n, len(schedule.table))
    return [*(schedule.point(t) for t in timesteps), schedule.clean()]


# --- data ------------------------------------------------------------------------------------


class Mixture:
    """A Gaussian mixture in one dimension, applied to every element of x."""

    def __init__(self, weights, means, stds):
        self.weights, self.means, self.stds = (np.asarray(v) for v in (weights, means, stds))

    def _parts(self, x, alpha, sigma):
        """Per component: responsibility, residual x - alpha mean, variance."""
        variance = alpha**2 * self.stds**2 + sigma**2
        residual = np.asarray(x, float)[..., None] - alpha * self.means
        log_r = np.log(self.weights) - np.log(variance) / 2 - residual**2 / variance / 2
        r = np.exp(log_r - log_r.max(-1, keepdims=True))
        return r / r.sum(-1, keepdims=True), residual, variance

    def eps(self, x, alpha, sigma):
        """E[eps | x] = -sigma times the score."""
        r, residual, variance = self._parts(x, alpha, sigma)
        return sigma * (r * residual / variance).sum(-1)

    def denoised(self, x, alpha, sigma):
        """E[x0 | x], the mean over components of each one's posterior mean."""
        r, residual, variance = self._parts(x, alpha, sigma)
        return (r * (self.means + alpha * self.stds**2 / variance * residual)).sum(-1)

    def denoiser(self, x, point):
        return self.denoised(x, point.alpha, point.sigma)


TG = Mixture([1.0], [0.3], [0.5])
TM = Mixture([0.3, 0.5, 0.2], [-0.9, 0.1, 0.8], [0.15, 0.1, 0.2])

# --- by name, as the golden tables refer to them ---------------------------------------------

SCHEDULES = {
    "vp": VPLinear(),
    "subvp": SubVP(),
    "ve": VE(),
    "edm": EDM(),
    "flow": Flow(),
    "ddpm": ddpm_linear(),
    "sd": ddpm_scaled_linear(),
    "cosine": ddpm_cosine(),
}


def grid(name: str, n: int) -> tuple[Schedule, list[Point]]:
    """The schedule and the n + 1 points that a golden table's grid stands for."""
    vp_grids = {"lam": lam_points, "karras": karras_points, "t": t_points}
    if name in vp_grids:
        return SCHEDULES["vp"], vp_grids[name](SCHEDULES["vp"], n)
    if name == "edm":
        return SCHEDULES["edm"], edm_points(n)
    return SCHEDULES["ddpm"], spaced_points(SCHEDULES["ddpm"], name, n)
