"""What the laws are tested with: data off a Gaussian and correlated data, by quadrature and differences."""

import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
import weak
from law_cases import MIXTURE
from oracles.cld import Law
from oracles.correlated import VelocityScore

from diffusion_engine import SOLVERS, Sampler
from diffusion_engine.processes import CLD, VP


def gradient(f, x, d=1e-5):
    return np.array([(f(x + d * e) - f(x - d * e)) / (2.0 * d) for e in np.eye(len(x))])


def log_density(x, weights, means, spreads):
    """Of a mixture of Gaussians."""
    off = x - means
    square = np.einsum("ki,kij,kj->k", off, np.linalg.inv(spreads), off)
    return math.log((weights * np.exp(-0.5 * square) / np.sqrt(np.linalg.det(spreads))).sum())


def test_estimate_of_a_correlated_mixture():
    """x + sigma^2 score = alpha E[x0 | x]."""
    alpha, sigma, x = 0.7, 0.4, np.array([0.3, -0.5, 0.2])
    spreads = alpha**2 * MIXTURE.covariances + sigma**2 * np.eye(3)
    score = gradient(lambda x: log_density(x, MIXTURE.weights, alpha * MIXTURE.means, spreads), x)
    made = MIXTURE.denoised(np.stack([x, x]), alpha, sigma)
    assert made == pytest.approx(np.stack([(x + sigma**2 * score) / alpha] * 2), rel=1e-7)


def test_draws_of_a_correlated_posterior():
    """Given x of the mixture, x0 is of the mixture and x less alpha x0 is independent noise."""
    rng, n, (alpha, sigma) = np.random.default_rng(0), 200_000, (0.7, 0.4)
    part = rng.choice(3, n, p=MIXTURE.weights)
    roots = np.linalg.cholesky(MIXTURE.covariances)
    x0 = MIXTURE.means[part] + np.einsum("nij,nj->ni", roots[part], rng.standard_normal((n, 3)))
    x = alpha * x0 + sigma * rng.standard_normal((n, 3))
    again = MIXTURE.drawn(x, alpha, sigma, rng.standard_normal(n), rng.standard_normal((n, 3)))
    mean, spread = MIXTURE.moments()
    noise = (x - alpha * again) / sigma
    bound = 6.0 / math.sqrt(n)
    assert np.abs(again.mean(0) - mean).max() < bound
    assert np.abs(np.cov(again.T) - spread).max() < bound
    assert np.abs(np.cov(noise.T) - np.eye(3)).max() < math.sqrt(2.0) * bound
    assert np.abs(np.cov(again.T, noise.T)[:3, 3:]).max() < bound


def test_velocity_score_of_a_correlated_mixture():
    process, t = CLD(), 0.2
    score = VelocityScore(MIXTURE, Law(eps=process.numerical_eps))
    x, v = np.array([0.3, -0.5, 0.2]), np.array([0.1, 0.4, -0.3])
    a, given = np.array(process.mean(t)), process.covariance(t).matrix
    means = np.stack([np.kron(a, m) for m in MIXTURE.means])
    spreads = np.stack(
        [np.kron(given, np.eye(3)) + np.kron(np.outer(a, a), c) for c in MIXTURE.covariances]
    )

    def log_of(v):
        return log_density(np.concatenate([x, v]), MIXTURE.weights, means, spreads)

    wanted = gradient(log_of, v)
    assert score(x[None], v[None], t)[0] == pytest.approx(wanted, rel=1e-6)
    slope = gradient(lambda v: score(x[None], v[None], t)[0], v)
    assert score.slope(x[None], v[None], t)[0] == pytest.approx(slope, rel=1e-6)


def density(process, t: float, n: int, e: float):
    """log p(x) or log p(x, v), and E[x0 | .], of the bent data, by quadrature over x0."""
    u, weights = np.polynomial.hermite_e.hermegauss(60)
    x0, prior = weak.MEAN + weak.STD * u, weights * (1.0 + e * weak.HERMITE[n](u))
    blocks = process.parts
    a = np.array(process.mean(t) if blocks == 2 else [process.at(t).alpha])
    given = process.covariance(t).matrix if blocks == 2 else np.array([[process.at(t).sigma ** 2]])

    def at(state):
        off = state - x0[:, None] * a
        joint = prior * np.exp(-0.5 * np.einsum("pi,ij,pj->p", off, np.linalg.inv(given), off))
        return math.log(joint.sum()), joint @ x0 / joint.sum()

    return at


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("process, t", [(VP(), 0.3), (CLD(), 0.2)], ids=["VP", "CLD"])
def test_networks_of_bent_data(process, t, n):
    """Their change with e, against that of E[x0 | x], or of d log p / dv, by quadrature."""
    state, e, d = np.array([0.7, -0.2][: process.parts]), 1e-4, 1e-3

    def wanted(e):
        at = density(process, t, n, e)
        if process.parts == 1:
            return at(state)[1]
        up, down = (at(state + np.array([0.0, sign * d]))[0] for sign in (1, -1))
        return (up - down) / (2.0 * d)

    def made(e):
        network = weak.network(process, n=n, e=e)
        point = process.at(t)
        scaled = torch.from_numpy(state[None]) * network.parameterisation.c_in(point)
        label = torch.tensor([network.parameterisation.label_of(point)], dtype=torch.float64)
        (out,) = network(scaled, label, None)
        own, on_output = (
            network.parameterisation.rule.score(process, t) if process.parts == 2 else (0.0, 1.0)
        )
        return own * state[-1] + on_output * float(out)

    assert made(0.0) == pytest.approx(wanted(0.0), rel=1e-5)
    slopes = [(f(e) - f(-e)) / (2.0 * e) for f in (made, wanted)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_sde"])
def test_the_change_is_that_of_a_chain(name, n):
    """Two steps of the engine, over all nodes of their normals, with the network of e and of -e."""
    process, points = VP(), [VP().at(t) for t in (1.0, 0.4, 0.2)]
    exact = partial(weak.network, process)
    run = weak.Run(SOLVERS[name](), exact(), points)
    mean, spread = weak.true_law(process, 1.0)
    z, weights = np.polynomial.hermite_e.hermegauss(7)
    draws = 1 + 2 * SOLVERS[name]().calls
    nodes = np.array(list(product(z, repeat=draws)))
    weights = np.array(list(product(weights, repeat=draws))).prod(1)
    x = torch.from_numpy(mean + math.sqrt(spread[0, 0]) * nodes[:, :1])

    def moments(e):
        sampler = Sampler(exact(n=n, e=e), name, times=points, dtype=torch.float64, backend="torch")
        ends = sampler.sample(
            x=x, noised=True, batch_size=len(x), progress=False,
            noise=lambda i, m, seeds: torch.from_numpy(nodes[:, i : i + 1]),
        ).samples[:, 0].numpy()  # fmt: skip
        u = (ends - run.mean[0]) / run.size[0]
        values = [weights @ weak.HERMITE[k](u) / math.factorial(k) for k in range(1, 5)]
        return np.array(values) / weights.sum()

    e = 1e-4
    found = (moments(e) - moments(-e)) / (2.0 * e)
    assert run.change(exact, n) == pytest.approx(found, rel=1e-4, abs=1e-5)
