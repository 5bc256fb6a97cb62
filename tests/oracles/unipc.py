"""UniPC (Zhao et al. 2023), multistep, data and noise prediction."""

import math

import numpy as np

from .common import (
    Array,
    Denoiser,
    Noise,
    at_end,
    eps_of,
    first_order,
    order_at,
    phi,
    steps,
    usable,
)


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
    disable_corrector=(),
    predict_x0=True,
    lower_order_final=True,
) -> Array:
    """UniP-p with UniC-p, one network call per step; the last step is not corrected.

    The call at the predicted state serves the corrector and is the next step's newest prediction:
    the corrected state is never evaluated.
    """
    run = steps(points)

    def predicted(x, at):
        denoised = denoiser(x, at)
        return denoised if predict_x0 else eps_of(x, at, denoised)

    def held(x, s, t, value):
        """The first-order step with x0 or eps held."""
        if predict_x0:
            return first_order(x, s, t, value)
        if s.alpha == 0:  # eps says nothing of x0 there
            return first_order(x, s, t, denoiser(x, s))
        return t.alpha * (x / s.alpha + (t.ratio - s.ratio) * value)

    history = [(run[0][1], predicted(x, run[0][1]))]
    for step, s, t in run:
        h = t.lam - s.lam
        signed = h if predict_x0 else -h
        base = held(x, s, t, history[0][1])
        p = order_at(step, len(run), order, lower_order_final)
        newest, *older = usable(history, p) or history[:1]
        if at_end(s, t):
            older = []
        r = [(point.lam - s.lam) / h for point, _ in older]
        d = [(value - newest[1]) / r_k for (_, value), r_k in zip(older, r, strict=True)]
        size = t.alpha if predict_x0 else t.sigma

        x = base
        if d:
            rho, scale = predictor_weights([*r, 1.0], signed, variant)
            x = base - size * scale * sum(w * d_k for w, d_k in zip(rho, d, strict=True))
        if step == len(run) - 1:
            break
        value_t = predicted(x, t)
        if corrector and step not in disable_corrector and not at_end(s, t):
            rho, scale = corrector_weights([*r, 1.0], signed, variant)
            d = [*d, value_t - newest[1]]
            x = base - size * scale * sum(w * d_k for w, d_k in zip(rho, d, strict=True))
        history.insert(0, (t, value_t))
    return x
