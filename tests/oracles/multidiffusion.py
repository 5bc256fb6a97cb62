"""MultiDiffusion as published: every window steps by itself, and the canvas is the mean of their ends."""

import math
from itertools import pairwise

import numpy as np


def windows(canvas, size, stride):
    """Corners of the windows in two dimensions; the last of an axis ends where the canvas does."""

    def starts(wide, own, step):
        made, at = [], 0
        while at + own < wide:
            made.append(at)
            at += step
        return [*made, wide - own]

    return [
        (top, left)
        for top in starts(canvas[0], size[0], stride[0])
        for left in starts(canvas[1], size[1], stride[1])
    ]


def averaged(parts, corners, canvas, size):
    total, counts = np.zeros(canvas), np.zeros(canvas)
    for part, (top, left) in zip(parts, corners, strict=True):
        total[top : top + size[0], left : left + size[1]] += part
        counts[top : top + size[0], left : left + size[1]] += 1
    return total / counts


def windowed_ddim(denoiser, points, x, corners, size, eta=0.0, noise=None):
    """DDIM of eta over a canvas x [h, w].

    denoiser  (window's x, point) -> the estimate of x0 in the window
    noise     () -> normals of the canvas
    """
    for s, t in pairwise(points):
        std = 0.0
        if eta and t.sigma:
            std = eta * t.sigma * math.sqrt(1.0 - (t.alpha * s.sigma / (s.alpha * t.sigma)) ** -2)
        z = noise() if std else np.zeros_like(x)
        ends = []
        for top, left in corners:
            cut = np.s_[top : top + size[0], left : left + size[1]]
            d = denoiser(x[cut], s)
            eps = (x[cut] - s.alpha * d) / s.sigma
            down = math.sqrt(max(t.sigma**2 - std**2, 0.0))
            ends.append(t.alpha * d + down * eps + std * z[cut])
        x = averaged(ends, corners, x.shape, size)
    return x
