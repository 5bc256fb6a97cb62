"""Golden numbers of CLD in whole runs: the float64 reference, and float32 on `cpp`.

With Gaussian data a run is linear in its normals: samples that get one normal each, the others being 0,
have the variance of x as their sum of squares, without any sampling error.
"""

import math
from functools import cache

import numpy as np
import pytest
import torch
from cld_cases import TC, VARYING
from oracles import cld_golden as golden

from diffusion_engine import Sampler
from diffusion_engine.networks.linearize import linearized
from diffusion_engine.testing import cld_gaussian, cld_mixture

RUNS = {
    "reference": {"dtype": torch.float64, "backend": "torch"},
    "cpp": {"dtype": torch.float32, "backend": "cpp"},
}


def variance(solver, steps, how, **options):
    """Of x at the end, for data N(0, 1/4)."""
    network = cld_gaussian(process=TC)
    if solver == "sscs_exact":
        network = linearized(network, 3)
    sampler = Sampler(network, solver, steps, **RUNS[how], **options)
    draws = [(i, m) for i, row in enumerate(sampler.plan().rows) for m in range(2) if row.draws(m)]
    n = len(draws)

    def one_each(row, m, seeds):
        z = torch.zeros(len(seeds), 1)
        if (row, m) in draws:
            z[draws.index((row, m))] = 1.0
        return z

    made = sampler.sample(n, noise=one_each, batch_size=n, progress=False)
    assert all(made.finite)
    return float(made.samples.double().square().sum())


@pytest.mark.parametrize("how", RUNS)
@pytest.mark.parametrize("solver, grid", golden.ERRORS)
def test_errors(solver, grid, how):
    """The slopes are those of test_cld_solvers.py, of more steps, and float32 runs the same plan."""
    known = [(n, v) for n, v in zip(golden.STEPS, golden.ERRORS[solver, grid][0], strict=True) if v]
    rounding = 0.0 if how == "reference" else 2e-6
    for n, value in known[: 2 if how == "reference" else 1]:
        error = variance(solver, n, how, grid=grid, end="t_min") - golden.TARGET[0]
        assert error == pytest.approx(value, abs=2e-3 * abs(value) + rounding)


@pytest.mark.parametrize("how, allowed", [("reference", 5e-8), ("cpp", 1e-6)])
@pytest.mark.parametrize("solver, grid", golden.DENOISED_50)
def test_fifty_evaluations_with_the_denoising(solver, grid, how, allowed):
    wanted = golden.DENOISED_50[solver, grid][0]
    assert variance(solver, 50, how, grid=grid) == pytest.approx(wanted, abs=allowed)


@pytest.mark.parametrize("how, allowed", [("reference", 1e-8), ("cpp", 1e-6)])
def test_one_step(how, allowed):
    """x, from the state before the call; without noise."""
    for solver, times, u, wanted in (
        ("sscs", [0.5, 0.45], golden.HALF, golden.AFTER[0]),
        ("cld_em", [0.5, 0.45], (1.0, 0.5), golden.EM_AFTER[0]),
    ):
        first = {(0, 0): u[0], (0, 1): u[1] / math.sqrt(TC.mass)}
        sampler = Sampler(cld_gaussian(process=TC), solver, times=times, **RUNS[how])
        made = sampler.sample(
            1, noise=lambda row, m, seeds, first=first: torch.full((1, 1), first.get((row, m), 0.0))
        )
        assert float(made.samples) == pytest.approx(wanted, abs=max(allowed, 3e-8))


@cache
def ends(process, name, n, **options):
    """Of 16 trajectories from t = 1 to 0.3."""
    times = np.linspace(1.0, 0.3, n + 1)
    network = cld_mixture(process=process)
    return Sampler(network, name, times=times, **RUNS["reference"], **options).sample(16).samples


@pytest.mark.parametrize(
    "solver, options, order",
    [("cld_ode", {}, 2)] + [("cld_exp", {"max_order": order}, order) for order in (1, 2, 3)],
    ids=str,
)
def test_order_where_beta_varies(solver, options, order):
    """On the mixture, against the ends of 1200 steps of order 3."""
    exact = ends(VARYING, "cld_exp", 1200)
    counts = (200, 400) if order == 3 else (100, 200)
    errors = [float((ends(VARYING, solver, n, **options) - exact).abs().mean()) for n in counts]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)
