"""score_sde's sampler (Song et al. 2021) in its own words: an SDE, score_fn(x, t), times from 1 to eps.

x is [batch, ...] in the range of the data; model(x, labels) is the network.
"""

import math

import numpy as np


class VPSDE:
    """continuous  labels are 999 t, else those of the table of n betas."""

    T, eps = 1.0, 1e-3

    def __init__(self, n, continuous=True, b0=0.1, b1=20.0):
        self.n, self.continuous, self.b0, self.b1 = n, continuous, b0, b1
        self.betas = np.linspace(b0 / n, b1 / n, n)
        self.cumulative = np.cumprod(1 - self.betas)

    def index(self, t):
        return round(t * (self.n - 1))  # their .long() truncates

    def std(self, t):
        return math.sqrt(1 - math.exp(-0.5 * t**2 * (self.b1 - self.b0) - t * self.b0))

    def score(self, model, x, t):
        if self.continuous:
            return -model(x, 999 * t) / self.std(t)
        return -model(x, t * (self.n - 1)) / math.sqrt(1 - self.cumulative[self.index(t)])

    def sde(self, x, t):
        beta = self.b0 + t * (self.b1 - self.b0)
        return -0.5 * beta * x, math.sqrt(beta)

    def discretize(self, x, t):
        beta = self.betas[self.index(t)]
        return math.sqrt(1 - beta) * x - x, math.sqrt(beta)

    def alpha(self, t):
        return 1 - self.betas[self.index(t)]

    def ancestral(self, x, score, t):
        beta = self.betas[self.index(t)]
        return (x + beta * score) / math.sqrt(1 - beta), math.sqrt(beta)


class SubVPSDE(VPSDE):
    def std(self, t):
        return 1 - math.exp(-0.5 * t**2 * (self.b1 - self.b0) - t * self.b0)

    def sde(self, x, t):
        drift, g = super().sde(x, t)
        return drift, g * math.sqrt(1 - math.exp(-2 * self.b0 * t - (self.b1 - self.b0) * t**2))

    def discretize(self, x, t):
        drift, g = self.sde(x, t)
        return drift / self.n, g / math.sqrt(self.n)


class VESDE:
    T, eps = 1.0, 1e-5

    def __init__(self, n, continuous=True, low=0.01, high=50.0):
        self.n, self.continuous, self.low, self.high = n, continuous, low, high
        self.sigmas = np.exp(np.linspace(math.log(low), math.log(high), n))

    def score(self, model, x, t):
        if self.continuous:
            return model(x, self.low * (self.high / self.low) ** t)
        return model(x, round((1 - t) * (self.n - 1)))

    def discretize(self, x, t):
        k = round(t * (self.n - 1))
        before = self.sigmas[k - 1] if k else 0.0
        return 0.0, math.sqrt(self.sigmas[k] ** 2 - before**2)

    def alpha(self, t):
        return 1.0


def predict(kind, sde, x, score, t):
    """x_mean and the scale of the noise."""
    if kind == "ancestral":
        return sde.ancestral(x, score, t)
    if kind == "euler_maruyama":
        drift, g = sde.sde(x, t)
        return x - (drift - g**2 * score) / sde.n, g / math.sqrt(sde.n)
    f, g = sde.discretize(x, t)
    return x - f + g**2 * score, g


def langevin(sde, model, x, t, snr, z):
    """Norms of a sample each, then their means over the batch."""
    score = sde.score(model, x, t)
    norms = [np.linalg.norm(v.reshape(len(v), -1), axis=1).mean() for v in (z, score)]
    step = 2 * sde.alpha(t) * (snr * norms[0] / norms[1]) ** 2
    return x + step * score + math.sqrt(2 * step) * z


def pc_sampler(sde, model, x, noise, predictor, draws=None, snr=0.16, eps=None):
    """noise(i) of the predictor's step i, draws(i) of the corrector's before it; None corrects nothing."""
    for i, t in enumerate(np.linspace(sde.T, sde.eps if eps is None else eps, sde.n)):
        if draws is not None:
            x = langevin(sde, model, x, t, snr, draws(i))
        mean, scale = predict(predictor, sde, x, sde.score(model, x, t), t)
        x = mean + scale * noise(i)
    return mean
