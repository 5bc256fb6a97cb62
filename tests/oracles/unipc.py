"""UniPC (Zhao et al. 2023), multistep, data prediction."""

import math

import numpy as np

from .common import Array, Denoiser, Noise, at_end, first_order, order_at, phi, steps, usable


def unipc_system(nodes, h: float, variant: str):
    """(R, b, B) of the paper's eq. 7 for relative nodes r_k, the last of which is 1."""
    hh = -h  # data prediction runs the noise-prediction formulas with h negated
    scale = {"bh1": hh, "bh2": math.expm1(hh)}[variant]
    n = len(nodes)
    matrix = np.array([[r**i for r in nodes] for i in range(n)])
    b = np.array([math.factorial(i) * hh * phi(i + 1, hh) / scale for i in range(1, n + 1)])
    return matrix, b, scale


def predictor_weights(nodes, h: float, variant: str):
    """UniP's weights of D_k; order 2 takes the paper's 1/2 instead of the solution."""
    matrix, b, scale = unipc_system(nodes, h, variant)
    order = len(nodes)
    if order == 2:
        return np.array([0.5]), scale
    return np.linalg.solve(matrix[:-1, :-1], b[:-1]), scale


def corrector_weights(nodes, h: float, variant: str):
    """UniC's weights of D_k, the last for the new prediction; order 1 takes the paper's 1/2."""
    matrix, b, scale = unipc_system(nodes, h, variant)
    if len(nodes) == 1:
        return np.array([0.5]), scale
    return np.linalg.solve(matrix, b), scale


def unipc(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    order=2,
    variant="bh2",
    corrector=True,
    lower_order_final=True,
) -> Array:
    """UniP-p with UniC-p, one network call per step; the last step is not corrected.

    The call at the predicted state serves the corrector and is the next step's newest prediction:
    the corrected state is never evaluated.
    """
    run = steps(points)
    history = [(run[0][1], denoiser(x, run[0][1]))]
    for step, s, t in run:
        h = t.lam - s.lam
        base = first_order(x, s, t, history[0][1])
        p = order_at(step, len(run), order, lower_order_final)
        newest, *older = usable(history, p) or history[:1]
        if at_end(s, t):
            older = []
        r = [(point.lam - s.lam) / h for point, _ in older]
        d = [(value - newest[1]) / r_k for (_, value), r_k in zip(older, r, strict=True)]

        x = base
        if d:
            rho, scale = predictor_weights([*r, 1.0], h, variant)
            x = base - t.alpha * scale * sum(w * d_k for w, d_k in zip(rho, d, strict=True))
        if step == len(run) - 1:
            break
        denoised_t = denoiser(x, t)
        if corrector and not at_end(s, t):
            rho, scale = corrector_weights([*r, 1.0], h, variant)
            d = [*d, denoised_t - newest[1]]
            x = base - t.alpha * scale * sum(w * d_k for w, d_k in zip(rho, d, strict=True))
        history.insert(0, (t, denoised_t))
    return x
