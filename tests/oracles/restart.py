"""Restart sampling: the paper's algorithm 1, around any loop of an ODE."""

import math
from itertools import pairwise

import numpy as np


def levels(schedule, high, low, steps):
    """Points from high down to the point low, as EDM's grid."""
    ratios = (
        high ** (1 / 7) + np.arange(steps) / steps * (low.ratio ** (1 / 7) - high ** (1 / 7))
    ) ** 7
    return [schedule.point_at_lam(-np.log(ratio)) for ratio in ratios] + [low]


def backward(s, t, x, z, s_noise=1.0):
    """x at the noisier t, of x at s and a standard normal."""
    variance = t.sigma**2 - (t.alpha * s.sigma / s.alpha) ** 2
    return t.alpha / s.alpha * x + s_noise * math.sqrt(variance) * z


def restart(run, schedule, points, x, intervals, noise, s_noise=1.0):
    """The end of a run.

    run        (points, x, cut) -> x at the last of the points; cut: more points follow
    intervals  (low, high, K, steps), from noise to data
    noise      () -> standard normals
    """
    begun = list(points)
    for low, high, repeats, steps in intervals:
        i = min(range(len(begun)), key=lambda i: abs(begun[i].lam + math.log(low)))
        at, rest = begun[i], begun[i + 1 :]
        x = run(begun[: i + 1], x, True)
        down = levels(schedule, high, at, steps)
        for _ in range(repeats - 1):
            x = run(down, backward(at, down[0], x, noise(), s_noise), True)
        x = backward(at, down[0], x, noise(), s_noise)
        begun = down + rest
    return run(begun, x, False)


def gaussian(points, mean, std, start, intervals, schedule):
    """Mean and variance of the end of DDIM with restart on N(mean, std^2), of x ~ N(0, start).

    A step of the exact network is x_t = c_t + k (x_s - c_s), c = alpha mean.
    """

    def run(over, law, cut):
        m, v = law
        for s, t in pairwise(over):
            gain = s.alpha * std**2 / (s.alpha**2 * std**2 + s.sigma**2)
            scale = t.sigma / s.sigma
            slope = scale + (t.alpha - scale * s.alpha) * gain
            m, v = t.alpha * mean + slope * (m - s.alpha * mean), slope**2 * v
        return m, v

    law, begun = (0.0, start), list(points)
    for low, high, repeats, steps in intervals:
        i = min(range(len(begun)), key=lambda i: abs(begun[i].lam + math.log(low)))
        at, rest = begun[i], begun[i + 1 :]
        law = run(begun[: i + 1], law, True)
        down = levels(schedule, high, at, steps)
        for k in range(repeats):
            ratio = down[0].alpha / at.alpha
            law = ratio * law[0], ratio**2 * (law[1] - at.sigma**2) + down[0].sigma ** 2
            law = run(down, law, True) if k + 1 < repeats else law
        begun = down + rest
    return run(begun, law, False)
