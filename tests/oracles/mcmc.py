"""Annealed MCMC, one sample in plain float64 loops (Du et al. 2023; Roberts & Tweedie 1996; Neal 2011).

normal(key) is the array of normals of a key, uniform(key) a number in (0, 1). A level is (alpha, sigma), and
density(x, level) gives the score and the log density up to a constant. Move n behind step i has the key
(i + 1) 2^16 + n.
"""

import math

import numpy as np


def run(x, points, density, moves, normal, uniform):
    """x at the end, and the share of moves that each level accepted. DDPM's steps between the levels.

    x  at the first of the points
    """
    pairs, shares = [(p.alpha, p.sigma) for p in points], []
    for i, level in enumerate(pairs):
        if level[1] == 0.0:
            break
        x, accepted = moves(x, level, i, density, normal, uniform)
        shares.append(accepted)
        if i + 1 < len(pairs):
            x = reverse_step(x, level, pairs[i + 1], density, normal(i + 1))
    return x, shares


def reverse_step(x, s, t, density, z):
    """x_t given x_s and the estimate of x0: the posterior of DDPM."""
    (a_s, s_s), (a_t, s_t) = s, t
    x0 = (x + s_s**2 * density(x, s)[0]) / a_s
    forward = a_s / a_t
    beta = s_s**2 - forward**2 * s_t**2
    mean = forward * s_t**2 / s_s**2 * x + a_t * beta / s_s**2 * x0
    return mean + math.sqrt(beta) * s_t / s_s * z


def ula(e, steps):
    def moves(x, level, i, density, normal, uniform):
        for n in range(steps):
            score, _ = density(x, level)
            x = x + e(level) * score + math.sqrt(2 * e(level)) * normal(key(i, n))
        return x, 1.0

    return moves


def mala(e, steps):
    def moves(x, level, i, density, normal, uniform):
        h, accepted = e(level), 0
        for n in range(steps):
            score, log_p = density(x, level)
            new = x + h * score + math.sqrt(2 * h) * normal(key(i, n))
            new_score, new_log_p = density(new, level)
            forth = -np.sum((new - x - h * score) ** 2) / (4 * h)
            back = -np.sum((x - new - h * new_score) ** 2) / (4 * h)
            if math.log(uniform(key(i, n))) < new_log_p + back - log_p - forth:
                x, accepted = new, accepted + 1
        return x, accepted / steps

    return moves


def hmc(e, steps, leapfrogs, damping, adjusted):
    def moves(x, level, i, density, normal, uniform):
        h, v, accepted = e(level), None, 0
        for n in range(steps):
            z = normal(key(i, n))
            v = z if v is None else damping * v + math.sqrt(1 - damping**2) * z
            new, speed = x, v
            for _ in range(leapfrogs):
                speed = speed + h / 2 * density(new, level)[0]
                new = new + h * speed
                speed = speed + h / 2 * density(new, level)[0]
            before = density(x, level)[1] - np.sum(v**2) / 2
            after = density(new, level)[1] - np.sum(speed**2) / 2
            if not adjusted or math.log(uniform(key(i, n))) < after - before:
                x, v, accepted = new, speed, accepted + 1
            else:
                v = -v
        return x, accepted / steps

    return moves


def key(i, n):
    return (i + 1) * 2**16 + n


def gaussians(means, stds, weights, mixture=False):
    """The composed density of Gaussian data N(mean, std^2) in every element."""

    def density(x, level):
        alpha, sigma = level
        variances = [(alpha * std) ** 2 + sigma**2 for std in stds]
        scores = [-(x - alpha * m) / v for m, v in zip(means, variances, strict=True)]
        logs = [
            float(np.sum(-((x - alpha * m) ** 2) / (2 * v) - 0.5 * math.log(2 * math.pi * v)))
            for m, v in zip(means, variances, strict=True)
        ]
        if not mixture:
            return (
                sum(w * s for w, s in zip(weights, scores, strict=True)),
                sum(w * log for w, log in zip(weights, logs, strict=True)),
            )
        terms = [math.log(w) + log for w, log in zip(weights, logs, strict=True)]
        total = np.logaddexp.reduce(terms)
        return sum(math.exp(t - total) * s for t, s in zip(terms, scores, strict=True)), total

    return density
