"""Adams-Bashforth samplers: LMS, DEIS, iPNDM, PLMS. All integrate d(x/alpha) = eps d(ratio)."""

import functools

import numpy as np

from .common import Array, Denoiser, Noise, Point, eps_of, first_order, steps

# Constant-step Adams-Bashforth, newest first (Liu et al. 2022, eq. 12).
ADAMS = [
    np.array([1.0]),
    np.array([3.0, -1.0]) / 2,
    np.array([23.0, -16.0, 5.0]) / 12,
    np.array([55.0, -59.0, 37.0, -9.0]) / 24,
]


def lagrange(nodes, j: int, at):
    """The j-th Lagrange basis polynomial over `nodes`."""
    others = [node for k, node in enumerate(nodes) if k != j]
    return np.prod([(at - node) / (nodes[j] - node) for node in others], axis=0) + 0 * at


gauss_legendre = functools.cache(np.polynomial.legendre.leggauss)


def integral(f, a: float, b: float, panels: int = 1):
    """Gauss-Legendre, 32 nodes per panel."""
    z, w = gauss_legendre(32)
    edges = np.linspace(a, b, panels + 1)
    half = np.diff(edges)[:, None] / 2
    return float((half * w * f(edges[:-1, None] + half * (z + 1))).sum())


def rho_weights(nodes: list[Point], t: Point):
    """Integrals over the ratio of the Lagrange polynomials in the ratio: LMS and rhoAB."""
    ratios = [node.ratio for node in nodes if node.alpha > 0]
    weights = [
        integral(lambda ratio, j=j: lagrange(ratios, j, ratio), ratios[0], t.ratio)
        for j in range(len(ratios))
    ]
    return weights + [0.0] * (len(nodes) - len(ratios))  # infinitely far nodes weigh nothing


def t_weights(nodes: list[Point], t: Point, schedule, panels: int = 8):
    """Integrals over t of d(ratio)/dt times the Lagrange polynomials in t: DEIS tAB.

    alpha_t times these are the C_j of Zhang & Chen 2023, eq. 15: with VP, alpha_t d(ratio) is
    (alpha_t / alpha_tau) (-d log alpha / dtau) / sigma_tau dtau.
    """
    times = [node.t for node in nodes]
    return [
        integral(
            lambda tau, j=j: lagrange(times, j, tau) * schedule.ratio_rate(tau),
            times[0],
            t.t,
            panels,
        )
        for j in range(len(nodes))
    ]


def heun_step(denoiser, x, s: Point, t: Point, eps):
    """The mean slope of both ends, the second at the end of Euler's step."""
    x_t = t.alpha * (x / s.alpha + (t.ratio - s.ratio) * eps)
    mean = (eps + eps_of(x_t, t, denoiser(x_t, t))) / 2
    return t.alpha * (x / s.alpha + (t.ratio - s.ratio) * mean)


def adams_steps(denoiser, points, x, order, weights_of, denoised_at_zero, start="euler"):
    """x_t/alpha_t = x_s/alpha_s + sum_j weights[j] eps_j, history newest first."""
    history = []
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        history.insert(0, (s, eps_of(x, s, denoised)))
        if s.alpha == 0 or (denoised_at_zero and t.sigma == 0):
            x = first_order(x, s, t, denoised)
            continue
        if start == "heun" and step == 0 and t.sigma > 0:
            x = heun_step(denoiser, x, s, t, history[0][1])
            continue
        nodes = history[:order]
        weights = weights_of([point for point, _ in nodes], t)
        change = sum(w * eps for w, (_, eps) in zip(weights, nodes, strict=True))
        x = t.alpha * (x / s.alpha + change)
    return x


def lms(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    order=4,
    start="euler",
    denoised_at_zero=True,
) -> Array:
    """k-diffusion's sample_lms with exact integrals: `order` predictions, variable steps in ratio.

    A last step to sigma = 0 returns `denoised`; denoised_at_zero=False extrapolates to it with the
    full order instead, as k-diffusion does.
    """
    return adams_steps(denoiser, points, x, order, rho_weights, denoised_at_zero, start)


def deis(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    order=3,
    variant="tab",
    start="euler",
    schedule=None,
) -> Array:
    """DEIS tAB-r or rhoAB-r (Zhang & Chen 2023): polynomials of degree `order` in t or in ratio."""
    if variant == "rhoab":
        return adams_steps(denoiser, points, x, order + 1, rho_weights, True, start)
    if variant != "tab":
        raise ValueError(f"variant={variant!r}: use 'tab' or 'rhoab'")

    def weights_of(nodes, t):
        return t_weights(nodes, t, schedule)

    return adams_steps(denoiser, points, x, order + 1, weights_of, True, start)


def equal_weights(nodes: list[Point], t: Point):
    """Those of equal steps, whatever the steps."""
    return (t.ratio - nodes[0].ratio) * ADAMS[len(nodes) - 1]


def ipndm(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    order=4,
    start="euler",
    variable=False,
    denoised_at_zero=True,
) -> Array:
    """iPNDM (Zhang & Chen 2023, appendix): orders 1, 2, ... at the start; see lms for the end.

    variable takes the steps' own lengths, LMS's weights.
    """
    weights_of = rho_weights if variable else equal_weights
    return adams_steps(denoiser, points, x, order, weights_of, denoised_at_zero, start)


def plms(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, start="heun", **options
) -> Array:
    """PLMS (Liu et al. 2022, as latent diffusion runs it): iPNDM started by improved Euler.

    The first step costs two calls; the second, at the provisional state, enters no history.
    """
    return ipndm(denoiser, points, x, noise, start=start, **options)
