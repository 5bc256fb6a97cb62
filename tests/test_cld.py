"""CLD: its kernel, its solvers in law, by golden numbers and against independent loops."""

import itertools
import math
from dataclasses import replace

import cld_cases as cases
import numpy as np
import pytest
import torch
from cld_cases import DATA, TC, VARYING
from oracles import cld as oracle
from oracles import cld_golden as golden
from torch import nn

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork, grids
from diffusion_engine.linearized import linearized
from diffusion_engine.plan import Plan
from diffusion_engine.prediction import Velocity
from diffusion_engine.processes import CLD, VP
from diffusion_engine.solvers.cld import flow
from diffusion_engine.solvers.cld_sscs import phi_term
from diffusion_engine.testing import cld_gaussian, cld_mixture
from diffusion_engine.zoo.network import PROCESSES

OF_CLD = [name for name, kind in SOLVERS.items() if kind.blocks == 2]
SPLITTINGS = ["sscs", "sscs_mid", "sscs_mixed", "sscs2", "sscs_exact"]
STRIDING = "quadratic_striding"


def law(process):
    return oracle.Law(
        process.mass, process.gamma, process.beta0, process.beta1, process.numerical_eps
    )


def suited(name, network):
    return linearized(network) if name == "sscs_exact" else network


# --- the process -----------------------------------------------------------------------------


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
        ({"gamma": 0.0}, "0 < gamma"),
        ({"numerical_eps": -1.0}, "numerical_eps >= 0"),
        ({"beta0": 1.0, "beta1": -2.0}, "falls below 0"),
        ({"beta0": 0.0}, "positive in between"),
    ):
        with pytest.raises(ValueError, match=says):
            CLD(**wrong)


def test_striding():
    process = CLD()
    assert 1 - grids.quadratic_striding(process, 6) == pytest.approx(golden.STRIDING_5, abs=1e-5)
    points = grids.points(process, 50)
    assert (len(points), points[-2].t, points[-1].sigma) == (51, process.t_min, 0.0)


# --- what a network predicts -----------------------------------------------------------------


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
    p, q = network.weights(process.at(t))
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


# --- golden numbers --------------------------------------------------------------------------


@pytest.mark.parametrize("solver, grid", golden.ERRORS)
def test_errors_and_slopes(solver, grid):
    wanted, slope = golden.ERRORS[solver, grid]
    errors = []
    for n in golden.STEPS:
        made = cases.covariance(cases.plan(solver, n, grid=grid))
        errors.append(made[0, 0] - golden.TARGET[0])
    for error, value in zip(errors, wanted, strict=True):
        assert value is None or error == pytest.approx(value, rel=2e-3)  # as printed
    if slope is not None:
        assert math.log2(errors[-2] / errors[-1]) == pytest.approx(slope, abs=0.1)


@pytest.mark.parametrize("solver, powers", [("sscs2", 0), ("sscs_exact", 1)])
@pytest.mark.parametrize("process", [TC, VARYING], ids=["constant", "varying"])
def test_second_order(solver, powers, process):
    errors = []
    for n in (100, 200, 400):
        made = cases.plan(solver, n, process, Velocity(True, powers))
        spread = cases.covariance(made, process)[:2, :2]
        errors.append(np.abs(spread - cases.target(process, process.t_min)).max())
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert slopes == pytest.approx([2.0, 2.0], abs=0.1)


@pytest.mark.parametrize("process", [TC, VARYING], ids=["constant", "varying"])
@pytest.mark.parametrize("solver, order", [("cld_ode", 2)])
def test_order_of_the_ode(solver, order, process):
    """From the law at t = 1, which an ODE does not forget, to t = 0.1."""
    errors = []
    for n in (800, 1600):
        made = cases.plan(solver, np.linspace(1.0, 0.1, n + 1), process)
        spread = cases.covariance(made, process, first=cases.target(process, 1.0))[:2, :2]
        errors.append(np.abs(spread - cases.target(process, 0.1)).max())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def test_target():
    target = cases.target(TC, 1e-3)
    assert (target[0, 0], target[0, 1], target[1, 1]) == pytest.approx(golden.TARGET, abs=1e-11)


@pytest.mark.parametrize("solver, grid", golden.DENOISED_50)
def test_fifty_evaluations_with_the_denoising(solver, grid):
    """The paper's code counts the denoising's own call, which x does not use: 49 are made."""
    made = cases.plan(solver, 50, grid=grid, end="zero")
    assert made.nfe == 49
    assert made.rows[-1].new.keys() == {0}
    value = golden.DENOISED_50[solver, grid]
    assert cases.covariance(made)[0, 0] == pytest.approx(value, abs=5e-8)


def test_one_step():
    u = (1.0, 0.5)
    made = cases.plan("sscs", [0.55, 0.5, 0.45], merged=False)
    flow_row, kick_row = 2, 3  # the half step from t = .5, then the score part and the other half
    assert cases.moved(made, u, slice(flow_row, flow_row + 1)) == pytest.approx(
        golden.HALF, abs=1e-8
    )
    new = made.rows[flow_row].new
    noise = (new[0]["z0"], new[1]["z0"], new[1]["z1"])
    assert noise == pytest.approx(golden.NOISE, abs=1e-8)
    after = cases.moved(made, golden.HALF, slice(kick_row, kick_row + 1))
    assert after == pytest.approx(golden.AFTER, abs=1e-8)
    assert list(cases.slope(TC, 0.5)) == pytest.approx(golden.SLOPE, abs=1e-8)
    em = cases.plan("cld_em", [0.5, 0.45])
    assert cases.moved(em, u, slice(1, 2)) == pytest.approx(golden.EM_AFTER, abs=1e-8)


# --- against loops ---------------------------------------------------------------------------


def by_loop(solver, network, process, times, x, v, noise, denoise, **options):
    def score(x, v, t):
        given = (torch.as_tensor(a)[:, None] for a in (x, v))
        return network.module.score(*given, t)[:, 0].numpy()

    if solver == "cld_em":
        return oracle.euler_maruyama(law(process), score, times, x, v, noise, denoise)[0]
    if solver == "cld_ode":
        return oracle.heun(law(process), score, times, x, v, denoise)[0]
    kick = oracle.KICKS[solver]
    return oracle.splitting(
        law(process), score, times, x, v, noise, kick, denoise=denoise, **options
    )[0]


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize("end", ["zero", "t_min"])
@pytest.mark.parametrize("process", [CLD(numerical_eps=0.0), replace(VARYING, numerical_eps=0.0)])
@pytest.mark.parametrize(
    "solver, options",
    [("cld_em", {}), ("cld_ode", {})]
    + [(name, {}) for name in oracle.KICKS]
    + [("sscs", {"published": True})],
    ids=lambda v: v if isinstance(v, str) else ",".join(v),
)
def test_equals_the_loop(solver, options, process, end, mixed):
    """On a mixture, with the same normals; splittings with the noise of every half of the flow."""
    unmerged = {"merged": False} if solver.startswith("sscs") else {}
    network = cld_mixture(process=process, mixed=mixed)
    sampler = Sampler(
        network, solver, 5, end=end, dtype=torch.float64, backend="torch", **options, **unmerged
    )
    first = np.random.default_rng(0).standard_normal((2, 6)).astype(np.float32).astype(float)
    draws = {}

    def by_row(i, m, seeds):
        if i == 0:
            return torch.from_numpy(first[m])[:, None]
        z = np.random.default_rng([1, i, m]).standard_normal(6).astype(np.float32)
        draws[i, m] = z.astype(float)
        return torch.from_numpy(draws[i, m])[:, None]

    if unmerged:  # the first half of the flow is in row 0, where it preserves the prior
        matrix, noise = flow(
            process, sampler.solver.halves(_System(process), *sampler.points[:2])[0]
        )
        lower = np.linalg.cholesky(noise)
        silent = {0: np.zeros(6), 1: np.zeros(6)}
        u = np.array([first[0], math.sqrt(process.mass) * first[1]])
        x, v = np.linalg.solve(matrix, u)
        assert lower[1, 0] < 0
    else:
        silent = {}
        x, v = first[0], math.sqrt(process.mass) * first[1]
    ours = sampler.sample(6, noise=by_row).samples[:, 0].numpy()
    rows = sorted({i for i, _ in draws})

    def noise_of(step, m):
        if silent:
            return silent[m] if step == 0 else draws[rows[step - 1], m]
        return draws[rows[step], m]

    times = [p.t for p in sampler.points if p.sigma > 0.0]
    theirs = by_loop(solver, network, process, times, x, v, noise_of, end == "zero", **options)
    assert ours == pytest.approx(theirs, abs=1e-8)


class _System:
    """As much of a System as the halves of a step need."""

    def __init__(self, process):
        self.process = process

    def between(self, s, t):
        return float(self.process.integral(s.t) - self.process.integral(t.t))


@pytest.mark.parametrize("solver", SPLITTINGS)
@pytest.mark.parametrize("process", [TC, VARYING], ids=["constant", "varying"])
@pytest.mark.parametrize("end", ["zero", "t_min"])
def test_merged_halves_have_the_same_law(solver, process, end):
    merged, apart = (
        cases.plan(solver, 12, process, end=end, merged=merged) for merged in (True, False)
    )
    one, other = (cases.covariance(made, process)[:2, :2] for made in (merged, apart))
    if end == "zero":
        one, other = one[0, 0], other[0, 0]
    assert one == pytest.approx(other, abs=1e-13)
    assert merged.nfe == apart.nfe
    assert len(merged.rows) == merged.nfe + 1
    assert len(apart.rows) == len(merged.rows) + (11 if end == "t_min" else 10)


def test_published_halves():
    """The code's second half differs where beta varies, and only there."""
    for process, same in ((TC, True), (VARYING, False)):
        ours, theirs = (
            cases.covariance(cases.plan("sscs", 20, process, published=published), process)
            for published in (False, True)
        )
        assert (np.abs(ours - theirs).max() < 1e-12) == same


@pytest.mark.parametrize("k", range(5))
@pytest.mark.parametrize("z", [-40.0, -3.0, -1e-9, 0.0, 2.0])
def test_phi_terms(k, z):
    h = 1.0 / (1 << 14)
    s = (np.arange(1 << 14) + 0.5) * h
    assert phi_term(k, z) * math.factorial(k) == pytest.approx(
        float((s**k * np.exp(z * s)).sum() * h), rel=1e-5
    )


# --- starts, executors, dtypes ---------------------------------------------------------------


@pytest.mark.parametrize("solver", OF_CLD)
def test_image_start(solver):
    """x and v come from the kernel at the start; on Gaussian data from there the law is met."""
    made = cases.plan(solver, [0.4, 0.3995], VARYING, start="image")
    matrix, noise = next(cases.maps(made, VARYING))
    image = DATA * np.outer(matrix[:2, 0], matrix[:2, 0])
    spread = image + noise[:2] @ noise[:2].T
    assert spread == pytest.approx(cases.target(VARYING, 0.4), abs=3e-3)
    if solver in ("cld_em", "cld_ode"):
        assert spread == pytest.approx(cases.target(VARYING, 0.4), abs=1e-14)
    network = suited(solver, cld_gaussian(shape=(1, 4, 4)))
    images = 0.5 * torch.randn(512, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    out = Sampler(network, solver, 100, batch_size=512).sample(x=images, start=0.05).samples
    assert float((out * images).mean()) > 0.05  # what is left of the image
    assert float(out.std()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("solver", OF_CLD)
def test_samples_of_the_mixture(solver):
    network = suited(solver, cld_mixture(shape=(64,)))
    result = Sampler(network, solver, 100, batch_size=128).sample(128)
    assert result.finite == [True] * 128
    assert float(result.samples.mean()) == pytest.approx(-0.06, abs=0.03)
    assert float(result.samples.std()) == pytest.approx(0.6262, abs=0.02)


@pytest.mark.parametrize("solver", OF_CLD)
def test_cpp_runs_the_float64_plan(solver):
    def made(dtype, backend):
        network = suited(solver, cld_mixture(shape=(3, 5)))
        return Sampler(network, solver, 6, dtype=dtype, backend=backend).sample(5).samples

    exact = made(torch.float64, "torch")
    assert torch.equal(made(torch.float32, "cpp"), made(torch.float32, "torch"))
    assert (made(torch.float32, "cpp") - exact).abs().max() < 2e-4


@pytest.mark.parametrize("solver", OF_CLD)
def test_one_launch_a_call(solver, monkeypatch):
    from diffusion_engine.executors import eager

    launches, calls, real = [], [], eager.resolve

    def counted(*given):
        launch = real(*given)
        return lambda outs: (launches.append(len(outs)), launch(outs))

    monkeypatch.setattr(eager, "resolve", counted)
    network = suited(solver, cld_mixture())
    inner = network.module
    network = replace(network, module=lambda u, t: (calls.append(u.shape), inner(u, t))[1])
    result = Sampler(network, solver, 6).sample(3)
    assert len(calls) == result.nfe == 5 * SOLVERS[solver].calls
    assert set(calls) == {(3, 2)}
    assert launches == [0] + [1] * result.nfe


def elementwise(u, label):
    """A network of [x, v] whose bits are independent of the batch."""
    x, v = u.chunk(2, dim=1)
    return 0.3 * x - 0.2 * v.abs() - 0.05 * label.view(-1, *[1] * (u.ndim - 1))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("whole_run", [False, True])
@pytest.mark.parametrize("solver", [*OF_CLD, "sscs unmerged"])
def test_a_graph_makes_the_same_samples(solver, whole_run, memory_format, monkeypatch):
    from tape import TapeRecorder, taped

    from diffusion_engine.executors import Graph, graph

    monkeypatch.setattr(graph, "resolve", taped(graph.resolve))
    solver, _, unmerged = solver.partition(" ")
    options = {"merged": False} if unmerged else {}
    network = ScoreNetwork(
        elementwise, CLD(), (3, 5, 7), prediction="mixed_velocity", memory_format=memory_format
    )
    if solver == "sscs_exact":  # forward-mode derivatives cannot be taped
        network = linearized(
            replace(network, module=lambda u, t: elementwise(u, t).repeat(1, 2, 1, 1)), 1, True
        )
    eager = Sampler(network, solver, 4, **options)
    captured = Sampler(
        network, solver, 4, executor=Graph(recorder=TapeRecorder(), whole_run=whole_run), **options
    )
    for seed in (3, 9):
        want, got = eager.sample(5, seed=seed), captured.sample(5, seed=seed)
        assert torch.equal(want.samples, got.samples)


def test_plans_with_and_without_calls_share_a_batch():
    """A row without a call beside one with: each sample equals itself alone."""
    from diffusion_engine.executors import executor
    from diffusion_engine.executors.run import Run

    network = ScoreNetwork(elementwise, CLD(), (3, 5, 7), prediction="mixed_velocity")
    samplers = [Sampler(network, "sscs", 4, merged=False), Sampler(network, "cld_em", 6)]
    run = Run(
        network, [s.plan() for s in samplers], [0, 1, 0], torch.arange(3), torch.device("cpu")
    )
    made, finite = executor("eager").execute(run)
    assert all(finite)
    for i, p in enumerate(run.plan_of):
        assert torch.equal(made[i], samplers[p].sample(seeds=[i]).samples[0])


def test_linearized_products():
    """By differentiation and by a given elementwise slope: the same channel blocks."""

    def output(u, t):
        x, v = u.chunk(2, dim=1)
        return torch.sin(v) * x + t.view(-1, 1)

    def with_slope(u, t):
        x, v = u.chunk(2, dim=1)
        return torch.cat([output(u, t), torch.cos(v) * x], dim=1)

    u = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.full((4,), 0.3, dtype=torch.float64)
    base = ScoreNetwork(output, CLD(), (3,), prediction="velocity")
    one = linearized(base, 2)(u, t, None)[0]
    other = linearized(replace(base, module=with_slope), 2, elementwise=True)(u, t, None)[0]
    assert one.shape == (4, 15)
    assert torch.allclose(one, other, atol=1e-14)
    x, v = u.chunk(2, dim=1)
    slope = torch.cos(v) * x
    wanted = [output(u, t), slope * v, slope * output(u, t), slope**2 * v]
    assert torch.allclose(one[:, :12], torch.cat(wanted, dim=1), atol=1e-14)


def test_recipes_replay():
    network = ScoreNetwork(elementwise, CLD(), (3, 5, 7), prediction="mixed_velocity")
    made = Sampler(network, "sscs", 5).sample(3, seed=4)
    assert torch.equal(Sampler.replay(network, made.recipe).samples, made.samples)
    plan = Sampler(network, "sscs", 5, merged=False).plan()
    assert Plan.from_json(plan.to_json()) == plan


def test_guidance_mixes_scores():
    def module(u, label, y):
        return elementwise(u, label) + 0.1 * y.view(-1, 1, 1, 1)

    network = ScoreNetwork(
        module, CLD(), (3, 5, 7), prediction="mixed_velocity", null=10, classes=10
    )
    mixed = replace(
        network, module=lambda u, t, y: 3.0 * module(u, t, y) - 2.0 * module(u, t, y * 0 + 10)
    )
    guided = Sampler(network, "sscs", 5, guidance=3.0).sample(2, condition=[1, 2]).samples
    wanted = Sampler(mixed, "sscs", 5).sample(2, condition=[1, 2]).samples
    assert torch.allclose(guided, wanted, atol=1e-5)


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, kind in SOLVERS.items() if kind.blocks == 1])
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
    ],
)
def test_one_sentence(work, says):
    with pytest.raises(ValueError, match=says):
        work(cld_gaussian(shape=(1, 4, 4)))


def test_a_given_state_at_the_prior_draws_its_velocity():
    network = cld_gaussian(shape=(1, 4, 4))
    made = Sampler(network, "sscs", 30).sample(x=torch.randn(64, 1, 4, 4), noised=True)
    assert float(made.samples.std()) == pytest.approx(0.5, abs=0.05)
