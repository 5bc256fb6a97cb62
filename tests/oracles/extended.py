"""ER-SDE, SEEDS and SA-Solver, by their papers, in x / alpha or with the noise's own variance.

Integrals are exact polynomials' moments or fine sums, and the noise of a step's calls is one path's.
"""

import math

import numpy as np

from .common import Array, Denoiser, Noise, at_end, phi, steps

PHI = {  # the published code's functions
    "sde": lambda x: x * x,
    "sde_1": lambda x: x * (np.exp(-1 / x) + 10),
    "sde_4": lambda x: x**0.9 * np.log10(1 + 100 * x**1.5),
    "sde_5": lambda x: x * (np.exp(x**0.3) + 10),
}


def er_sde(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    noise_scaler="sde_5",
    eta=1.0,
    s_noise=1.0,
    max_order=3,
    variant="published",
    terms=0,
) -> Array:
    """In y = x / alpha and g: y_t = r y + (1 - r) x0 + c1 x0' + c2 x0'' + sqrt(g_t^2 - r^2 g_s^2) z."""

    def scale(g):
        return g * (PHI[noise_scaler](g) / g) ** eta

    history = []
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        if t.sigma == 0:
            return denoised
        if s.alpha == 0:
            # phi grows faster than g but for sde_1, whose quotient tends to 11.
            rest = (scale(t.ratio) / t.ratio) / 11**eta if noise_scaler == "sde_1" else 0.0
            share = float(rest) if eta else 1.0
            x = t.sigma * share / s.sigma * x + t.alpha * denoised
            spread = t.sigma * math.sqrt(max(1 - share**2, 0))
        else:
            history.insert(0, (s.ratio, denoised))
            r = float(scale(t.ratio) / scale(s.ratio))
            y = r * x / s.alpha + (1 - r) * denoised
            y = y + taylor(scale, s.ratio, t.ratio, history[:max_order], variant, terms)
            x = t.alpha * y
            spread = t.alpha * math.sqrt(max(t.ratio**2 - (r * s.ratio) ** 2, 0))
        if eta > 0 and s_noise > 0 and spread > 0:
            x = x + s_noise * spread * noise(step, 0)
    return x


def taylor(scale, before, after, history, variant, terms):
    if len(history) == 1:
        return 0.0
    g = [level for level, _ in history]
    first = (history[0][1] - history[1][1]) / (g[0] - g[1])
    second = 0.0
    if len(history) == 3:
        other = (history[1][1] - history[2][1]) / (g[1] - g[2])
        second = 2 * (first - other) / (g[0] - g[2])
        if variant == "newton":
            first = first + second * (g[0] - g[1]) / 2
    if terms:
        width = (before - after) / terms
        at = after + np.arange(terms) * width
        area = width / scale(at)
    else:  # Gauss-Legendre in log g, of eight panels
        nodes, weights = np.polynomial.legendre.leggauss(20)
        edges = np.linspace(math.log(after), math.log(before), 9)
        half = np.diff(edges)[:, None] / 2
        at = np.exp(edges[:-1, None] + half * (nodes + 1)).ravel()
        area = (half * weights).ravel() * at / scale(at)
    gap = after - before
    c1 = gap + float(scale(after)) * area.sum()
    c2 = gap**2 / 2 + float(scale(after)) * ((at - before) * area).sum()
    return c1 * first + c2 * second


class Path:
    """The noise of the SDE with the exponent eta h, W over e^(2 eta lam), from lam_s on."""

    def __init__(self, s, eta, draw):
        self.s, self.eta, self.draw = s, eta, draw
        self.lam, self.value = s.lam, 0.0

    def at(self, t):
        """Its part of the state at t, which lies beyond those asked before."""
        if self.eta == 0:
            return 0.0
        clock = [math.exp(2 * self.eta * (lam - self.s.lam)) for lam in (self.lam, t.lam)]
        if clock[1] > clock[0]:
            self.value = self.value + math.sqrt(clock[1] - clock[0]) * self.draw()
        self.lam = t.lam
        return t.sigma * math.exp(-self.eta * (t.lam - self.s.lam)) * self.value


def seeds(denoiser, points, x, noise, schedule, eta, s_noise, shares, weights_of):
    """weights_of(h) has, of each state beyond the first call's, the weights of later predictions."""
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        if at_end(s, t):
            decay = 1.0 if eta == 0 else 0.0
            scale = t.sigma * math.sqrt(1 - decay**2) * s_noise
            mean = t.sigma * decay / s.sigma * x
            x = mean + (t.alpha - t.sigma * decay / s.sigma * s.alpha) * denoised
            if scale > 0:
                x = x + scale * noise(step, 0)
            continue
        h = t.lam - s.lam
        path = Path(s, eta, lambda step=step: noise(step, 0))
        calls, ends = [denoised], [schedule.point_at_lam(s.lam + r * h) for r in shares] + [t]
        for share, end, weights in zip(
            [*shares, 1.0], ends, weights_of((1 + eta) * h), strict=True
        ):
            z = -(1 + eta) * share * h
            state = end.sigma / s.sigma * math.exp(-eta * share * h) * x
            state = state + end.alpha * -math.expm1(z) * denoised
            for weight, made in zip(weights, calls[1:], strict=False):
                state = state + end.alpha * weight * (made - denoised)
            state = state + (s_noise * path.at(end) if s_noise > 0 else 0.0)
            if end is not t:
                calls.append(denoiser(state, end))
        x = state
    return x


def seeds_2(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, schedule, eta=1.0, s_noise=1.0,
    r=0.5, variant="midpoint",
):  # fmt: skip
    """Two stages; the weight of the second is phi_1 / (2 r) or phi_2 / r."""

    def weights(h):
        whole = h * phi(1, -h) / 2 if variant == "midpoint" else h * phi(2, -h)
        return [[], [whole / r]]

    return seeds(denoiser, points, x, noise, schedule, eta, s_noise, [r], weights)


def seeds_3(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, schedule, eta=1.0, s_noise=1.0,
    r_1=1 / 3, r_2=2 / 3,
):  # fmt: skip
    """Three stages, the last step from the first and the third alone."""

    def weights(h):
        return [[], [r_2 / r_1 * (r_2 * h) * phi(2, -r_2 * h)], [0.0, h * phi(2, -h) / r_2]]

    return seeds(denoiser, points, x, noise, schedule, eta, s_noise, [r_1, r_2], weights)


def moments(rate, h, count):
    """int_0^1 rate h e^(-rate h (1 - u)) u^k du: rate h k! phi_{k+1}(-rate h)."""
    z = rate * h
    return [z * math.factorial(k) * phi(k + 1, -z) for k in range(count)]


def stochastic_adams(s, t, rate, history):
    """alpha_t times the integral of the polynomial through history [(lam, x0)], against that weight."""
    h = t.lam - s.lam
    places = [(lam - s.lam) / h for lam, _ in history]
    powers = np.vander(places, increasing=True).T
    b = np.linalg.solve(powers, moments(rate, h, len(history)))
    return t.alpha * sum(weight * made for weight, (_, made) in zip(b, history, strict=True))


def simplified(s, t, rate, history):
    """Appendix D: x0 at s, and (1 + tau^2) h^2 / 2 of the slope between the nodes."""
    h, (new, old) = t.lam - s.lam, history
    at_s = new[1] if new[0] == s.lam else old[1]
    slope = (new[1] - old[1]) / (new[0] - old[0])
    return t.alpha * (-math.expm1(-rate * h) * at_s + rate * h * h / 2 * slope)


def sa_solver(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    predictor_order=3,
    corrector_order=4,
    eta=1.0,
    s_tmin=0.0,
    s_tmax=math.inf,
    tau_at="end",
    s_noise=1.0,
    pece=False,
    simple=False,
    lower_order_final=True,
    final_corrector=1,
) -> Array:
    """Algorithm 1: predict, evaluate, correct with the same noise, and in PECE evaluate again."""
    intervals = steps(points)
    finite = [k for k, _, t in intervals if t.sigma > 0]
    history, pending = [], None
    for k, s, t in intervals:
        denoised = denoiser(x, s)
        if pending is not None and corrector_order:
            u, tau, kept, count = pending
            known = [(s.lam, denoised), *history][:count]
            rule = simplified if simple and len(known) == 2 else stochastic_adams
            x = kept + rule(u, s, 1 + tau**2, known)
            if pece:
                denoised = denoiser(x, s)
        at = t if tau_at == "end" or s.alpha == 0 else s
        tau = eta if s_tmin <= at.ratio <= s_tmax else 0.0
        if at_end(s, t):
            decay = 0.0 if tau else 1.0
            scale = t.sigma * math.sqrt(1 - decay**2) * s_noise
            x = (
                t.sigma * decay / s.sigma * x
                + (t.alpha - t.sigma * decay / s.sigma * s.alpha) * denoised
            )
            if scale > 0:
                x = x + scale * noise(k, 0)
            pending = None
            if s.alpha > 0:
                history.insert(0, (s.lam, denoised))
            continue
        history.insert(0, (s.lam, denoised))
        left = sum(j >= k for j in finite)
        predictor = min(predictor_order, len(history))
        corrector = min(corrector_order, len(history) + 1)
        if lower_order_final:
            predictor, corrector = min(predictor, left), min(corrector, left + final_corrector)
        h = t.lam - s.lam
        kept = t.sigma / s.sigma * math.exp(-(tau**2) * h) * x
        scale = s_noise * t.sigma * math.sqrt(-math.expm1(-2 * tau**2 * h))
        if scale > 0:
            kept = kept + scale * noise(k, 0)
        known = history[:predictor]
        rule = simplified if simple and len(known) == 2 else stochastic_adams
        x = kept + rule(s, t, 1 + tau**2, known)
        pending = s, tau, kept, corrector
    return x
