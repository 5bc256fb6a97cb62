"""Picard iteration over all steps of a run at once (Shih et al. 2023, algorithm 1), in float64."""

import numpy as np

from .common import Array, Denoiser, steps


def ddim_steps(denoiser: Denoiser, points):
    """The steps Phi_i of DDIM, one a function of x."""

    def phi(s, t):
        scale = t.sigma / s.sigma
        return lambda x: scale * x + (t.alpha - scale * s.alpha) * denoiser(x, s)

    return [phi(s, t) for _, s, t in steps(points)]


def in_order(phi, x: Array) -> Array:
    """[N + 1, ...], the states of the run."""
    states = [x]
    for step in phi:
        states.append(step(states[-1]))
    return np.array(states)


def iterates(phi, x: Array, rounds: int, window: int | None = None, tolerance: float = 0.0):
    """Yields the buffer [N + 1, ...] and the first point of the window after each round.

    tolerance  on the root mean square that a point moves; 0 moves the window on by 1 a round
    """
    n = len(phi)
    width, b = window or n, 0
    buffer = np.array([x] * (n + 1), float)
    for _ in range(rounds):
        e = min(b + width, n)
        drifts = [phi[i](buffer[i]) - buffer[i] for i in range(b, e)]
        new = buffer[b] + np.cumsum(drifts, axis=0)
        moved = np.sqrt(((new - buffer[b + 1 : e + 1]) ** 2).reshape(e - b, -1).mean(1))
        # The call of point j was right where j has not moved since; that of the first always is.
        stride = next((j for j in range(1, e - b) if not moved[j - 1] < tolerance), e - b)
        if not tolerance:
            stride = 1
        buffer[b + 1 : e + 1] = new
        buffer[e + 1 :] = buffer[e]
        b += stride
        yield buffer.copy(), b
        if b == n:
            return
