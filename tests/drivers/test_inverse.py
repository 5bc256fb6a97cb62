"""Inverse problems against dense float64 loops, and against the posterior of Gaussian data."""

import numpy as np
import pytest
import torch
from inverse_cases import GAUSSIAN, MATRIX, MIXTURE, SIZE, Y, law, matrix, network, points, sampler
from oracles import inverse as oracle
from oracles.correlated import Correlated
from oracles.dpm import dpmpp_2m
from oracles.one_step import ddim, heun

from diffusion_engine import Sampler
from diffusion_engine.drivers import driver
from diffusion_engine.processes import EDM, VP, FlowMatching

ESTIMATES = {
    "mmps": {"sigma_y": 0.2},
    "pgdm": {"sigma_y": 0.2, "sigma_data": 0.7},
    "diffpir": {"sigma_y": 0.2, "lam": 3.0},
}
LOOPS = {"ddim": ddim, "dpmpp_2m": dpmpp_2m, "heun": heun}
START = np.random.default_rng(1).normal(size=(len(Y), SIZE))


def made(name, options, iterations=6):
    return driver(
        name, operator=matrix(), **options, **({} if name == "dps" else {"iterations": iterations})
    )


@pytest.mark.parametrize("name", ESTIMATES)
@pytest.mark.parametrize("solver", LOOPS)
def test_an_estimate_runs_in_any_solver(name, solver):
    run = sampler(made(name, ESTIMATES[name]), solver, 9, end="t_min")
    found = run.sample(x=torch.from_numpy(START), noised=True, measurement=torch.from_numpy(Y))
    for x, y, end in zip(START, Y, found.samples.numpy(), strict=True):

        def denoiser(x, at, y=y):
            return getattr(oracle, name)(MIXTURE, x, at, MATRIX, y, **ESTIMATES[name])

        assert end == pytest.approx(LOOPS[solver](denoiser, points(run), x), abs=1e-8)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("name, options", [("dps", {"zeta": 0.4}), ("flowdps", {})])
def test_a_step_of_the_state_is_the_papers(name, options, eta):
    noise = np.random.default_rng(2).normal(size=(10, 1, len(Y), SIZE)).astype("f").astype(float)
    run = sampler(made(name, options), "ddim", 9, eta=eta)
    found = run.sample(measurement=torch.from_numpy(Y), noise=torch.from_numpy(noise))
    std = run.network.process.prior_std(run.points[0])
    for i, (y, end) in enumerate(zip(Y, found.samples.numpy(), strict=True)):

        def normal(step, m, i=i):
            return noise[step + 1, m, i]

        loop = getattr(oracle, name)
        wanted = loop(
            MIXTURE, points(run), std * noise[0, 0, i], normal, MATRIX, y, eta=eta, **options
        )
        assert end == pytest.approx(wanted, abs=1e-8)


# How far the covariance is from the posterior's after 64 steps: the solver's own error.
EXACT = {"ddim": 0.04, "dpmpp_2m": 0.005, "ddpm": 0.06}
PROCESSES = {"vp": VP(), "edm": EDM(), "flow": FlowMatching()}


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("solver", EXACT)
def test_mmps_is_exact_for_gaussian_data(solver, process):
    """Its error is the solver's, and falls with the steps."""
    y, apart = Y[0], []
    mean, spread = oracle.posterior(GAUSSIAN.means[0], GAUSSIAN.covariances[0], MATRIX, y, 0.2)
    for steps in (16, 64):
        run = sampler(made("mmps", {"sigma_y": 0.2}), solver, steps, GAUSSIAN, PROCESSES[process])
        found = law(run, y)
        assert found[0] == pytest.approx(mean, abs=0.011)
        apart.append(abs(found[1] - spread).max())
    assert apart[1] < min(0.4 * apart[0], EXACT[solver])


@pytest.mark.parametrize("solver", EXACT)
def test_pgdm_is_exact_for_data_of_its_variance(solver):
    data = Correlated([1.0], GAUSSIAN.means, [0.49 * np.eye(SIZE)])
    mean, spread = oracle.posterior(data.means[0], data.covariances[0], MATRIX, Y[0], 0.2)
    run = sampler(made("pgdm", {"sigma_y": 0.2, "sigma_data": 0.7}), solver, 64, data)
    found = law(run, Y[0])
    assert found[0] == pytest.approx(mean, abs=0.011)
    assert found[1] == pytest.approx(spread, abs=EXACT[solver])


def test_diffpir_keeps_a_measurement_without_noise():
    run = sampler(made("diffpir", {"sigma_y": 0.0}), "ddim", 9)
    found = run.sample(measurement=torch.from_numpy(Y)).samples.numpy()
    assert found @ MATRIX.T == pytest.approx(Y, abs=1e-9)


def test_at_pure_noise_the_estimate_is_the_networks():
    """alpha = 0: x says nothing of x0."""
    flow = network(process=FlowMatching())
    x, y = torch.randn(2, SIZE, dtype=torch.float64), torch.from_numpy(Y[:2])
    for name in ("mmps", "pgdm", "dps"):
        driven = made(name, {}).network(flow)
        label = torch.ones(2, dtype=torch.float64)
        first = driven(x, label, {"measurement": y})[0]
        assert torch.equal(first, flow(x, label, None)[0])


def test_the_step_of_dps_is_one_of_its_length():
    """zeta = 0 is the solver alone; twice zeta is twice the first step."""
    ends = {}
    for zeta in (0.0, 0.5, 1.0):
        run = Sampler(network(), "ddim", sigmas=[5.0, 2.0], driver=made("dps", {"zeta": zeta}))
        ends[zeta] = run.sample(2, measurement=torch.from_numpy(Y[0])).samples
    plain = Sampler(network(), "ddim", sigmas=[5.0, 2.0]).sample(2).samples
    assert torch.equal(ends[0.0], plain)
    assert torch.allclose(ends[1.0] - plain, 2.0 * (ends[0.5] - plain), atol=1e-6)
