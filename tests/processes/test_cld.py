"""CLD: its kernel, what its networks predict, and bad input."""

import math

import numpy as np
import pytest
import torch
from cld_cases import OF_CLD, TC, VARYING, elementwise, law
from oracles import cld as oracle
from oracles import cld_golden as golden
from torch import nn

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork
from diffusion_engine.networks.linearize import linearized
from diffusion_engine.ops.philox import normals
from diffusion_engine.processes import CLD, VP, grids
from diffusion_engine.solvers.cld import first_row, flow
from diffusion_engine.testing import cld_gaussian, cld_mixture
from diffusion_engine.zoo.networks import PROCESSES


@pytest.mark.parametrize("t", golden.MARGINALS)
def test_marginal(t):
    covariance = TC.covariance(t)
    found = [float(a) for a in (*covariance, *covariance.cholesky, 1 / covariance.cholesky[2])]
    assert found == pytest.approx(golden.MARGINALS[t], rel=1e-6)  # as printed
    assert found[:3] == pytest.approx(golden.MARGINALS[t][:3], rel=1e-8)


def test_mean_and_ell():
    assert [float(a) for a in TC.mean(1.0)] == pytest.approx(golden.MEAN_AT_ONE, abs=1e-9)
    for eps, values in golden.ELL.items():
        found = [1 / CLD(numerical_eps=eps).covariance(t).cholesky[2] for t in golden.ELL_TIMES]
        assert found == pytest.approx(values, abs=5.1e-5)


@pytest.mark.parametrize("process", [TC, VARYING, CLD(mass=1.0, gamma=1.0, beta0=2.0)])
@pytest.mark.parametrize("t", [0.02, 0.13, 0.5, 1.0])
def test_kernel_solves_the_moment_equations(process, t):
    mean, covariance = oracle.forward(law(process), t)
    assert [float(a) for a in process.mean(t)] == pytest.approx(list(mean), abs=1e-11)
    assert process.covariance(t).matrix == pytest.approx(covariance, abs=1e-11)


def test_the_series_meets_the_closed_form():
    times = np.geomspace(1e-9, 1.0, 4001)
    xx = TC.covariance(times).xx
    assert np.all(np.diff(xx) > 0)
    around = TC.covariance(np.array([1 / 16 - 1e-12, 1 / 16])).xx  # y = 1
    assert around[0] == pytest.approx(around[1], rel=1e-10)
    small = 16 * times[:500]
    pure = CLD(numerical_eps=0.0, gamma=1e-300).covariance(times[:500])
    assert pure.xx == pytest.approx(small**3 / 6 * (1 - 0.75 * small), rel=1e-4)
    assert pure.cholesky[2] ** 2 == pytest.approx(TC.mass * small / 2, rel=1e-3)


def test_levels_and_times_invert_each_other():
    for process in (CLD(), VARYING):
        times = np.geomspace(1e-4, 1.0, 200)
        assert np.all(np.diff(process.lam(times)) < 0)
        assert process.t_of_lam(process.lam(times)) == pytest.approx(times, rel=1e-10)


@pytest.mark.parametrize("t", [1e-3, 0.1, 1.0])
def test_kernel_draws(t):
    """A million draws of (x, v) from images of ones, to 3 sigma."""
    n, process = 1_000_000, CLD()
    z = torch.stack([normals(torch.tensor([1]), torch.tensor([0]), m, n)[0] for m in (0, 1)])
    new = first_row(process, process.at(t), "image", process.at(t)).new
    x, v = ((new[k]["S0"] + new[k]["z0"] * z[0] + new[k]["z1"] * z[1]).double() for k in (0, 1))
    mean, c = process.mean(t), process.covariance(t)
    for draws, center, variance in ((x, mean[0], c.xx), (v, mean[1], c.vv)):
        assert abs(float(draws.mean() - center)) < 3 * math.sqrt(variance / n)
        assert float(draws.var() / variance) == pytest.approx(1.0, abs=3 * math.sqrt(2 / n))
    product = float(((x - mean[0]) * (v - mean[1])).mean())
    assert product == pytest.approx(c.xv, abs=3 * math.sqrt((c.xx * c.vv + c.xv**2) / n))


def test_the_end_is_the_prior():
    """KL from the kernel of an image at 1 to the prior, per element."""
    mean, covariance = np.array(TC.mean(1.0)), TC.covariance(1.0).matrix
    precision = np.diag([1.0, 1.0 / TC.mass])
    excess = np.trace(precision @ covariance) - 2 - math.log(np.linalg.det(precision @ covariance))
    assert 0 < 0.5 * (excess + mean @ precision @ mean) < 1e-5


@pytest.mark.parametrize("b", [1e-6, 0.01, 0.4, 3.0])
def test_flow(b):
    matrix, noise = flow(TC, b)
    prior = np.diag([1.0, TC.mass])
    assert matrix @ prior @ matrix.T + noise == pytest.approx(prior, abs=1e-15)
    assert noise[0, 1] < 0
    exact = oracle.half_step(law(TC), b)
    assert matrix == pytest.approx(exact[0], abs=1e-10)
    assert noise == pytest.approx(exact[1], abs=1e-10)
    twice, again = flow(TC, 2 * b)
    assert matrix @ matrix == pytest.approx(twice, abs=1e-14)
    assert matrix @ noise @ matrix.T + noise == pytest.approx(again, abs=1e-14)


def test_process_is_named_and_checked():
    assert PROCESSES["cld"] is CLD
    for wrong, says in (
        ({"mass": 0.0}, "mass > 0"),
        ({"mass": math.inf}, "mass=inf: give a finite number"),
        ({"gamma": math.nan}, "gamma=nan: give a finite number"),
        ({"numerical_eps": math.inf}, "numerical_eps=inf: give a finite number"),
        ({"t_min": 0.0}, "0 < t_min < t_max"),
        ({"t_min": 1.0}, "0 < t_min < t_max"),
        ({"t_max": math.nan}, "t_max=nan: give a finite number"),
        ({"beta0": math.nan}, "beta0=nan"),
        ({"beta1": math.inf}, "beta1=inf"),
        ({"gamma": 0.0}, "0 < gamma"),
        ({"numerical_eps": -1.0}, "numerical_eps >= 0"),
        ({"beta0": 1.0, "beta1": -2.0}, "no number of 0 or above"),
        ({"beta0": 0.0}, "positive in between"),
    ):
        with pytest.raises(ValueError, match=says):
            CLD(**wrong)


def test_striding():
    process = CLD()
    assert 1 - grids.quadratic_striding(process, 6) == pytest.approx(golden.STRIDING_5, abs=1e-5)
    points = grids.points(process, 50)
    assert (len(points), points[-2].t, points[-1].sigma) == (51, process.t_min, 0.0)


def test_outputs_of_both_scores():
    u = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    label = torch.tensor([0.5], dtype=torch.float64)
    for mixed, value in ((False, golden.PLAIN), (True, golden.MIXED)):
        network = cld_gaussian(process=TC, mixed=mixed)
        assert float(network(u, label, None)[0]) == pytest.approx(value, abs=1e-8)
    module = cld_gaussian(process=TC).module
    x, v = torch.tensor(golden.HALF, dtype=torch.float64)[:, None, None]
    assert float(module.score(x, v, 0.5)) == pytest.approx(golden.SCORE, abs=5e-8)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("t", [1e-3, 0.1, 0.7, 1.0])
def test_implied_x0(mixed, t):
    """A point mass at x0 with a random first velocity: its score tells x0."""
    process = CLD()
    network = cld_gaussian(0.3, 0.0, process=process, mixed=mixed)
    u = torch.tensor([[0.4, -0.2], [-1.0, 0.3]], dtype=torch.float64)
    out = network(u, torch.full((2,), t, dtype=torch.float64), None)[0]
    p, q = network.parameterisation.weights(process.at(t))
    assert len(p) == 2
    x0 = p[0] * u[:, 0] + p[1] * u[:, 1] + q * out[:, 0]
    assert x0.numpy() == pytest.approx([0.3, 0.3], abs=1e-9)


def test_mixture_score_is_a_derivative():
    module = cld_mixture(process=TC).module
    w, m, s = (np.array(a) for a in (module.weights, module.means, module.stds))

    def density(x, v, t):
        mean = np.array(TC.mean(t))
        total = 0.0
        for weight, center, std in zip(w, m, s, strict=True):
            c = TC.covariance(t).matrix + std**2 * np.outer(mean, mean)
            d = np.array([x, v]) - center * mean
            total += weight / math.sqrt(np.linalg.det(c)) * math.exp(-d @ np.linalg.solve(c, d) / 2)
        return math.log(total)

    for t, x, v in ((0.01, 0.2, -0.1), (0.1, -0.5, 0.3), (0.6, 1.0, 0.4)):
        slope = (density(x, v + 1e-5, t) - density(x, v - 1e-5, t)) / 2e-5
        found = float(module.score(torch.tensor([[x]]).double(), torch.tensor([[v]]).double(), t))
        assert found == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", [n for n, kind in SOLVERS.items() if kind.parts == 1])
def test_solvers_of_x_refuse(name):
    with pytest.raises(ValueError, match=r"moves x alone and CLD has a state of \[x, v\]; use"):
        Sampler(cld_gaussian(), name, 5)


@pytest.mark.parametrize("name", OF_CLD)
def test_solvers_of_cld_refuse(name):
    network = ScoreNetwork(elementwise, VP(), (1, 4, 4))
    with pytest.raises(ValueError, match=r"moves \[x, v\] and VP has a state of x alone; use"):
        Sampler(network, name, 5)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 3, 3), nn.Linear(5, 3)], ids=["conv", "linear"])
def test_wrong_input_channels(layer):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, u, t):
            return self.layer(u)

    shape = (3, 8, 8) if isinstance(layer, nn.Conv2d) else (3,)
    network = ScoreNetwork(Net(), CLD(), shape, prediction="mixed_velocity")
    says = r"does not take 6 channels, and CLD's reads \[x, v\] of 3 each"
    with pytest.raises(ValueError, match=says):
        Sampler(network, "sscs", 5).sample()


def test_wrong_output_channels():
    network = ScoreNetwork(lambda u, t: u, CLD(), (3,), prediction="velocity")
    with pytest.raises(ValueError, match=r"returned 6 channels for \[x, v\] of 3 each"):
        Sampler(network, "sscs", 5).sample()


@pytest.mark.parametrize(
    "work, says",
    [
        (lambda n: Sampler(n, "sscs", 1), "one step is the final denoising"),
        (lambda n: Sampler(n, "sscs_exact", 5), r"give it linearized\(network\)"),
        (lambda n: linearized(linearized(n)), "returns its score alone"),
        (lambda n: linearized(n, 8), "powers=8"),
        (lambda n: ScoreNetwork(elementwise, CLD(), (1,)), "of CLD predicts 'velocity'"),
        (
            lambda n: ScoreNetwork(elementwise, VP(), (1,), prediction="velocity"),
            "of CLD predicts 'velocity'",
        ),
        (
            lambda n: Sampler(n, "sscs", 5).sample(
                x=torch.zeros(1, 1, 4, 4), start=0.4, noised=True
            ),
            "state at t=0.4 has a velocity",
        ),
        (
            lambda n: Sampler(n, "sscs", 5).sample(
                2, mask=torch.ones(1, 4, 4), known=torch.zeros(1, 4, 4)
            ),
            "moves a velocity too",
        ),
        (
            lambda n: Sampler(n, "sscs", 5, clip=(-1.0, 1.0)),
            r"clip=\(-1.0, 1.0\) bounds an estimate",
        ),
        (lambda n: Sampler(n, "cld_exp", 5, max_order=3.0), "max_order=3.0: give an integer"),
        (lambda n: Sampler(n, "sscs", 5).encode(torch.zeros(1, 1, 4, 4)), "'cld_exp' or 'cld_ode'"),
        (
            lambda n: Sampler(n, "cld_exp", 5).encode(torch.zeros(1, 1, 4, 4), refine=2),
            "refine=2 inverts steps of x alone, and 'cld_exp' moves a velocity too",
        ),
        (
            lambda n: Sampler(n, "sscs", 5).sample(x=torch.zeros(1, 2, 4, 4), start=0.5),
            r"x has shape \[1, 2, 4, 4\]",
        ),
    ],
)
def test_one_sentence(work, says):
    with pytest.raises(ValueError, match=says):
        work(cld_gaussian(shape=(1, 4, 4)))


def test_a_given_state_at_the_prior_draws_its_velocity():
    network = cld_gaussian(shape=(1, 4, 4))
    made = Sampler(network, "sscs", 30).sample(x=torch.randn(64, 1, 4, 4), noised=True)
    assert float(made.samples.std()) == pytest.approx(0.5, abs=0.05)
