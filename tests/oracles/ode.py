"""The probability flow ODE by an adaptive integrator: what deterministic samplers converge to."""

import math

import numpy as np
from optional import needs

from .cld import Law, integral
from .problems import Mixture

EXACT = {"method": "DOP853", "rtol": 1e-13, "atol": 1e-14}


def end(problem: Mixture, x, start, to):
    """Where the ODE leads states x from one point to another, points having alpha and sigma.

    dx = E[x0 | x] d alpha + E[eps | x] d sigma (Song et al. 2021) depends on the process by the scale of x
    alone: x / sqrt(alpha^2 + sigma^2) moves with the angle arctan(sigma / alpha), also from pure noise.
    """

    def rate(angle, z):
        alpha, sigma = math.cos(angle), math.sin(angle)
        return alpha * problem.eps(z, alpha, sigma) - sigma * problem.denoised(z, alpha, sigma)

    angles = [math.atan2(p.sigma, p.alpha) for p in (start, to)]
    z = np.asarray(x, float) / math.hypot(start.alpha, start.sigma)
    return needs("scipy.integrate").solve_ivp(rate, angles, z, **EXACT).y[:, -1] * math.hypot(
        to.alpha, to.sigma
    )


def moments(law: Law, t: float):
    """Weights of x0 in the means of CLD's (x, v), and the covariance given x0, by matrix exponentials."""
    b, zero = integral(law, t, 0.0), np.zeros((2, 2))
    noise = np.diag([0.0, 2.0 * law.friction])
    expm = needs("scipy.linalg").expm
    both = expm(b * np.block([[law.drift, noise], [zero, -law.drift.T]]))  # Van Loan 1978
    a, gathered = both[:2, :2], both[:2, 2:]
    first = np.diag([0.0, law.gamma * law.mass])
    return a[:, 0], (gathered + a @ first) @ a.T + law.eps * np.eye(2)


def velocity_score(law: Law, problem: Mixture, x, v, t: float):
    """d log p(x, v) / dv where x0 is of the mixture."""
    mean, covariance = moments(law, t)
    spread = covariance + np.multiply.outer(problem.stds**2, np.outer(mean, mean))
    u = np.stack([x, v], axis=-1)[..., None, :] - np.multiply.outer(problem.means, mean)
    pulled = np.einsum("kij,...kj->...ki", np.linalg.inv(spread), u)
    log_r = np.log(problem.weights) - np.log(np.linalg.det(spread)) / 2 - (u * pulled).sum(-1) / 2
    r = np.exp(log_r - log_r.max(-1, keepdims=True))
    return -(r * pulled[..., 1]).sum(-1) / r.sum(-1)


def cld_end(law: Law, problem: Mixture, x, v, start: float, to: float):
    """Where CLD's ODE leads (x, v) from one time to another (Dockhorn et al. 2022)."""

    def rate(t, u):
        x, v = np.split(u, 2)
        pull = x + law.friction * (v / law.mass + velocity_score(law, problem, x, v, t))
        return law.beta(t) * np.concatenate([v / law.mass, -pull])

    made = (
        needs("scipy.integrate")
        .solve_ivp(rate, (start, to), np.concatenate([x, v]), **EXACT)
        .y[:, -1]
    )
    return np.split(made, 2)
