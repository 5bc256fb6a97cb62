"""Adams-Bashforth samplers: LMS, DEIS, iPNDM, PLMS, PNDM. All integrate d(x/alpha) = eps d(ratio)."""

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


def lam_weights(nodes: list[Point], t: Point):
    """Integrals over the ratio of the Lagrange polynomials in its logarithm: DEIS' log rho."""
    lams = [node.lam for node in nodes]
    return [
        -integral(lambda lam, j=j: lagrange(lams, j, lam) * np.exp(-lam), lams[0], t.lam, panels=8)
        for j in range(len(nodes))
    ]


def v_of(x, s: Point, denoised):
    return s.alpha * eps_of(x, s, denoised) - s.sigma * denoised


def heun_step(denoiser, x, s: Point, t: Point, kept, kept_of, read):
    """The mean slope of both ends, the second at the end of Euler's step."""
    x_t = t.alpha * (x / s.alpha + (t.ratio - s.ratio) * read(kept))
    mean = (kept + kept_of(x_t, t, denoiser(x_t, t))) / 2
    return t.alpha * (x / s.alpha + (t.ratio - s.ratio) * read(mean))


def adams_steps(
    denoiser,
    points,
    x,
    order,
    weights_of,
    denoised_at_zero,
    start="euler",
    lower_order_final=False,
    mixes="eps",
):
    """x_t/alpha_t = x_s/alpha_s + sum_j weights[j] eps_j, history newest first.

    mixes="v" sums up v of the calls, and reads it as the newest call's.
    """
    history, kept_of = [], {"eps": eps_of, "v": v_of}[mixes]
    for step, s, t in steps(points):
        denoised = denoiser(x, s)
        history.insert(0, (s, kept_of(x, s, denoised)))

        def read(kept, x=x, s=s):
            return kept if mixes == "eps" else s.alpha * kept + s.sigma * x

        if s.alpha == 0 and start == "blind":
            x = t.sigma / s.sigma * x
            continue
        if s.alpha == 0 or (denoised_at_zero and t.sigma == 0):
            x = first_order(x, s, t, denoised)
            continue
        if start == "heun" and step == 0 and t.sigma > 0:
            x = heun_step(denoiser, x, s, t, history[0][1], kept_of, read)
            continue
        left = len(points) - 1 - step
        nodes = history[: min(order, left) if lower_order_final else order]
        weights = weights_of([point for point, _ in nodes], t)
        mean = sum(w * kept for w, (_, kept) in zip(weights, nodes, strict=True)) / sum(weights)
        x = t.alpha * (x / s.alpha + (t.ratio - s.ratio) * read(mean))
    return x


def lms(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    order=4,
    start="euler",
    lower_order_final=False,
    denoised_at_zero=True,
) -> Array:
    """k-diffusion's sample_lms with exact integrals: `order` predictions, variable steps in ratio.

    A last step to sigma = 0 returns `denoised`; denoised_at_zero=False extrapolates to it with the
    full order instead, as k-diffusion does.
    """
    return adams_steps(
        denoiser, points, x, order, rho_weights, denoised_at_zero, start, lower_order_final
    )


def deis(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    order=3,
    variant="tab",
    start="euler",
    lower_order_final=False,
    schedule=None,
) -> Array:
    """DEIS tAB-r or rhoAB-r (Zhang & Chen 2023): polynomials of degree `order` in t, in ratio or its log."""
    known = {
        "tab": lambda nodes, t: t_weights(nodes, t, schedule),
        "rhoab": rho_weights,
        "logrho": lam_weights,
    }
    if variant not in known:
        raise ValueError(f"variant={variant!r}: use {', '.join(known)}")
    return adams_steps(
        denoiser, points, x, order + 1, known[variant], True, start, lower_order_final
    )


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
    lower_order_final=False,
    variable=False,
    denoised_at_zero=True,
    mixes="eps",
) -> Array:
    """iPNDM (Zhang & Chen 2023, appendix): orders 1, 2, ... at the start; see lms for the end.

    variable takes the steps' own lengths, LMS's weights. start="blind" is diffusers' first step from pure
    noise, where its estimate of x0 is 0.
    """
    weights_of = rho_weights if variable else equal_weights
    return adams_steps(
        denoiser, points, x, order, weights_of, denoised_at_zero, start, lower_order_final, mixes
    )


def plms(
    denoiser: Denoiser, points, x: Array, noise: Noise | None = None, *, start="heun", **options
) -> Array:
    """PLMS (Liu et al. 2022, as latent diffusion runs it): iPNDM started by improved Euler.

    The first step costs two calls; the second, at the provisional state, enters no history.
    """
    return ipndm(denoiser, points, x, noise, start=start, **options)


def pndm(
    denoiser: Denoiser,
    points,
    x: Array,
    noise: Noise | None = None,
    *,
    schedule,
    mixes="eps",
    published=False,
    denoised_at_zero=True,
) -> Array:
    """F-PNDM (Liu et al. 2022, Alg. 2): three pseudo Runge-Kutta steps (eq. 13), then multistep (eq. 12).

    published takes N/2 timesteps of a step over N, rounded down, for its half, from its start where the first
    call leads and from its end where the network is told to be.
    """
    history, kept_of = [], {"eps": eps_of, "v": v_of}[mixes]
    for step, s, t in steps(points):

        def move(kept, u, x=x, s=s):
            """The transfer of eq. 11 from s to u."""
            eps = kept if mixes == "eps" else s.alpha * kept + s.sigma * x
            return u.alpha * (x / s.alpha + (u.ratio - s.ratio) * eps)

        def call(x, at):
            return kept_of(x, at, denoiser(x, at))

        first = call(x, s)
        history.insert(0, first)
        if step < 3 and t.sigma > 0:
            if published:
                half = (s.t - t.t) // 2
                to, told = schedule.point(s.t - half), schedule.point(t.t + half)
            else:
                to = told = schedule.point((s.t + t.t) / 2)
            second = call(move(first, to), told)
            third = call(move(second, told), told)
            last = call(move(third, t), t)
            x = move((first + 2 * second + 2 * third + last) / 6, t)
        elif t.sigma == 0 and denoised_at_zero:
            x = first_order(x, s, t, denoiser(x, s))
        else:
            nodes = history[:4]
            x = move(sum(w * e for w, e in zip(ADAMS[len(nodes) - 1], nodes, strict=True)), t)
    return x
