"""The estimates beside azula's, of one network: equal where the formulas are."""

import numpy as np
import pytest
import torch
from inverse_cases import MATRIX, SIZE, Denoiser, Y, matrix, network
from optional import needs

from diffusion_engine import Sampler
from diffusion_engine.drivers import driver
from diffusion_engine.processes import VP
from diffusion_engine.processes.levels import levels

azula = needs("azula")
guidance, denoise = needs("azula.guidance"), needs("azula.denoise")
covariance, noise = needs("azula.linalg.covariance"), needs("azula.noise")

TIMES = (0.9, 0.5, 0.1)
X = torch.from_numpy(np.random.default_rng(4).normal(size=(1, SIZE)))
MEASURED = torch.from_numpy(Y[:1])


class Levels(noise.Schedule):
    def __call__(self, t):
        return levels(VP(), t)


class Theirs(denoise.Denoiser):
    def __init__(self):
        super().__init__()
        self.own, self.schedule = Denoiser(network().module.data, VP()), Levels()

    def forward(self, x_t, t):
        return denoise.DiracPosterior(mean=self.own(x_t, t.reshape(1)))


def apply(x):
    return x @ torch.from_numpy(MATRIX).T


def ours(rule, t):
    """What the network in the network's place returns."""
    driven = rule.network(network())
    return driven(X, torch.tensor([t], dtype=torch.float64), {"measurement": MEASURED})


@pytest.mark.parametrize("t", TIMES)
def test_mmps(t):
    spread = covariance.IsotropicCovariance(torch.tensor(0.04, dtype=torch.float64))
    peer = guidance.MMPSDenoiser(Theirs(), MEASURED, apply, spread, solver="cg", iterations=3)
    wanted = peer(X, torch.tensor(t, dtype=torch.float64)).mean
    rule = driver("mmps", operator=matrix(), sigma_y=0.2, iterations=3)
    assert torch.allclose(ours(rule, t)[0], wanted, atol=1e-5)


@pytest.mark.parametrize("t", TIMES)
def test_diffpir(t):
    options = {"var_y": 0.04, "lmbda": 3.0, "solver": "cg", "iterations": 6}
    peer = guidance.DiffPIRDenoiser(Theirs(), MEASURED, apply, **options)
    wanted = peer(X, torch.tensor(t, dtype=torch.float64)).mean
    rule = driver("diffpir", operator=matrix(), sigma_y=0.2, lam=3.0, iterations=6)
    assert torch.allclose(ours(rule, t)[0], wanted, atol=1e-5)


def test_dps(monkeypatch):
    """A whole run of theirs, whose normals are ours."""
    rule = driver("dps", operator=matrix(), zeta=0.4)
    run = Sampler(
        network(),
        "ddpm",
        times=[0.9, 0.6, 0.3, 0.1],
        driver=rule,
        dtype=torch.float64,
        backend="torch",
    )
    normals = torch.randn(4, 1, 1, SIZE, generator=torch.Generator().manual_seed(0))
    found = run.sample(x=X, noised=True, noise=normals, measurement=MEASURED).samples
    rows = iter(normals[1:, 0])
    monkeypatch.setattr(torch, "randn_like", lambda x: next(rows).to(x))
    peer, x = guidance.DPSSampler(Theirs(), MEASURED, apply, zeta=0.4, silent=True), X
    for s, t in zip(run.points, run.points[1:], strict=False):
        x = peer.step(x, *(torch.tensor(p.t, dtype=torch.float64) for p in (s, t)))
    assert torch.allclose(found, x, atol=1e-5)


@pytest.mark.parametrize("t", TIMES)
def test_pgdm_without_noise(t):
    """Theirs adds alpha_s alpha_t J^T A^+ (y - A x0) to a step of DDIM; ours has the same direction, of the
    length sigma^2 / (alpha r^2)."""
    inverse = torch.from_numpy(np.linalg.pinv(MATRIX))
    peer = guidance.PGDMSampler(
        Theirs(), MEASURED, apply, lambda y: y @ inverse.T, eta=0.0, silent=True
    )
    s, t = torch.tensor(t, dtype=torch.float64), torch.tensor(0.05, dtype=torch.float64)
    (alpha, sigma), (lower, less) = levels(VP(), s), levels(VP(), t)
    x0 = Denoiser(network().module.data, VP())(X, s.reshape(1))
    step = lower * x0 + less / sigma * (X - alpha * x0)
    direction = (peer.step(X, s, t) - step) / (lower * alpha)
    rule = driver("pgdm", operator=matrix(), sigma_y=0.0, sigma_data=1.0, iterations=6)
    square = (sigma / alpha) ** 2
    length = sigma**2 / alpha / (square / (1.0 + square))
    assert torch.allclose(ours(rule, float(s))[0], x0 + length * direction, atol=1e-5)
