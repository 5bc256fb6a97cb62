"""Mixtures of Gaussians whose elements depend on each other: estimates, velocity scores and draws."""

import math

import numpy as np

from .cld import forward


class Correlated:
    """sum_k weights[k] N(means[k], covariances[k]) on the last axis of x [..., d]."""

    def __init__(self, weights, means, covariances):
        self.weights, self.means, self.covariances = (
            np.asarray(v, float) for v in (weights, means, covariances)
        )
        self.size = self.means.shape[1]

    def moments(self):
        """Mean [d] and covariance [d, d]."""
        mean = self.weights @ self.means
        apart = self.means - mean
        within = np.einsum("k,kij->ij", self.weights, self.covariances)
        return mean, within + np.einsum("k,ki,kj->ij", self.weights, apart, apart)

    def _parts(self, x, means, covariances):
        """Per component, first: responsibility [K, ...], and grad log of its density [K, ..., d]."""
        residual = x - means.reshape(len(means), *[1] * (x.ndim - 1), -1)
        precision = np.linalg.inv(covariances)
        slope = -np.einsum("kij,k...j->k...i", precision, residual, optimize=True)
        log = (residual * slope).sum(-1) / 2
        base = np.log(self.weights) - np.linalg.slogdet(covariances)[1] / 2
        log = log + base.reshape(-1, *[1] * (x.ndim - 1))
        share = np.exp(log - log.max(0))
        return share / share.sum(0), slope

    def _at(self, x, alpha, sigma):
        """Responsibilities and, given each component, means [K, ..., d] of x0."""
        spread = alpha**2 * self.covariances + sigma**2 * np.eye(self.size)
        share, slope = self._parts(x, alpha * self.means, spread)
        means = self.means.reshape(len(self.means), *[1] * (x.ndim - 1), -1)
        pulled = np.einsum("kij,k...j->k...i", self.covariances, slope, optimize=True)
        return share, means - alpha * pulled, spread

    def denoised(self, x, alpha, sigma):
        """E[x0 | x]."""
        share, means, _ = self._at(x, alpha, sigma)
        return (share[..., None] * means).sum(0)

    def denoiser(self, x, point):
        return self.denoised(x, point.alpha, point.sigma)

    def drawn(self, x, alpha, sigma, chosen, z):
        """x0 given x: the component below whose share Phi(chosen) lies, and a normal draw of it from z."""
        share, means, spread = self._at(x, alpha, sigma)
        below = np.vectorize(lambda c: (1 + math.erf(c / math.sqrt(2))) / 2)(chosen)
        place = (share.cumsum(0)[:-1] < below).sum(0)
        gain = self.covariances @ np.linalg.inv(spread)
        left = np.linalg.cholesky(self.covariances - alpha**2 * gain @ self.covariances)
        mean = np.take_along_axis(means, place[None, ..., None], 0)[0]
        return mean + np.einsum("...ij,...j->...i", left[place], z)


class VelocityScore:
    """The score of CLD's velocity on a mixture, a function (x, v, t); `slope` is its derivative in v."""

    def __init__(self, data, law):
        self.data, self.law = data, law

    def _parts(self, x, v, t):
        data, (mean, given) = self.data, forward(self.law, float(t))
        spread = np.kron(given, np.eye(data.size)) + np.stack(
            [np.kron(np.outer(mean, mean), c) for c in data.covariances]
        )
        means = np.stack([np.kron(mean, m) for m in data.means])
        share, slope = data._parts(np.concatenate([x, v], -1), means, spread)
        return share[..., None], slope[..., data.size :], spread

    def __call__(self, x, v, t):
        share, slope, _ = self._parts(x, v, t)
        return (share * slope).sum(0)

    def slope(self, x, v, t):
        share, slope, spread = self._parts(x, v, t)
        d = self.data.size
        within = np.linalg.inv(spread)[:, d:, d:]
        own = np.einsum("k...,kij->...ij", share[..., 0], within)
        apart = slope - (share * slope).sum(0)
        return np.einsum("k...i,k...j->...ij", share * apart, apart, optimize=True) - own
