"""Solvers of CLD in law, by golden numbers and against independent loops."""

import math
from dataclasses import replace

import cld_cases as cases
import numpy as np
import pytest
import torch
from cld_cases import TC, VARYING, law
from oracles import cld_golden as golden
from oracles.solvers import named, oracle

from diffusion_engine import Sampler
from diffusion_engine.networks.linearize import linearized
from diffusion_engine.networks.prediction import Velocity
from diffusion_engine.processes import CLD, grids
from diffusion_engine.solvers.cld import System, flow
from diffusion_engine.solvers.cld_sscs import SSCS, SSCSExact, phi_term
from diffusion_engine.testing import cld_gaussian, cld_mixture

SPLITTINGS = ["sscs", "sscs_mid", "sscs_mixed", "sscs2", "sscs_exact"]


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


@pytest.mark.parametrize("process", [TC, VARYING], ids=["constant", "varying"])
@pytest.mark.parametrize(
    "solver, options, order, steps",
    [("cld_ode", {}, 2, 800)]
    + [("cld_exp", {"max_order": order}, order, 200) for order in (1, 2, 3)],
    ids=str,
)
def test_order_of_the_ode(solver, options, order, steps, process):
    """From the law at t = 1, which an ODE does not forget, to t = 0.1."""
    errors = []
    for n in (steps, 2 * steps):
        made = cases.plan(solver, np.linspace(1.0, 0.1, n + 1), process, **options)
        spread = cases.covariance(made, process, first=cases.target(process, 1.0))[:2, :2]
        errors.append(np.abs(spread - cases.target(process, 0.1)).max())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize("powers, error", [(1, 1e-5), (2, 1e-7), (7, 1e-14)])
def test_the_exact_score_part(powers, error, mixed):
    """dv = a (s_v + v / M) of a score K (x, v), from its closed form."""
    prediction, (x, v) = Velocity(mixed, powers), (1.0, 0.5)
    s, t = TC.at(0.15), TC.at(0.145)
    (kick,) = SSCSExact().kicks(System(TC, prediction), s, t)
    on_x, on_v = cases.slope(TC, kick.at.t)
    own, on_output = prediction.score(TC, kick.at.t)
    output, change = (on_x * x + (on_v - own) * v) / on_output, (on_v - own) / on_output
    products = [change**k * w for k in range(1, 1 + powers) for w in (v, output)]
    made = kick.v["S1"] * v + np.dot(kick.raw, [output, *products])
    a = 2.0 * TC.friction * float(TC.integral(s.t) - TC.integral(t.t))
    rate = on_v + 1.0 / TC.mass
    wanted = math.exp(a * rate) * v + math.expm1(a * rate) / rate * on_x * x
    assert made == pytest.approx(wanted, abs=error)


def quantiles(n):
    """Of the mixture, at (i + 1/2) / n."""
    x = np.linspace(-2.5, 2.5, 20001)
    weights, means, stds = (0.3, 0.5, 0.2), (-0.9, 0.1, 0.8), (0.15, 0.1, 0.2)
    below = sum(
        w * 0.5 * (1.0 + torch.erf(torch.from_numpy((x - m) / (s * math.sqrt(2.0)))).numpy())
        for w, m, s in zip(weights, means, stds, strict=True)
    )
    return np.interp((np.arange(n) + 0.5) / n, below, x)


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize("nfe, gain", [(20, 1.8), (30, 1.8)])
def test_the_exponential_method_beats_sscs(nfe, gain, mixed):
    """Wasserstein distance of 20,000 elements to the mixture, at equal calls of the network."""

    def distance(solver):
        network = cld_mixture(shape=(200,), mixed=mixed)
        made = Sampler(network, solver, nfe + 1, batch_size=100).sample(100)
        assert made.nfe == nfe
        found = np.sort(made.samples.numpy().ravel())
        return float(np.abs(found - quantiles(len(found))).mean())

    assert distance("cld_exp") * gain < min(distance("sscs"), distance("sscs_mixed"))


def test_the_exponential_method_follows_trajectories():
    """Against Heun's at equal calls, both against a fine grid's ends."""
    network = cld_mixture()

    def ends(solver, n):
        sampler = Sampler(network, solver, n, dtype=torch.float64, backend="torch", batch_size=300)
        return sampler.sample(300).samples.numpy()

    exact = ends("cld_exp", 300)
    for calls, gain in ((10, 20), (20, 10), (50, 10)):
        error, other = (
            np.sqrt(np.mean((ends(*run) - exact) ** 2))
            for run in (("cld_exp", calls + 1), ("cld_ode", calls // 2 + 1))
        )
        assert error * gain < other


def test_target():
    target = cases.target(TC, 1e-3)
    assert (target[0, 0], target[0, 1], target[1, 1]) == pytest.approx(golden.TARGET, abs=1e-11)


def denoising(t):
    """The paper's last step for x and v: Euler and Maruyama's from t to 0, without its noise."""
    on_x, on_v = cases.slope(TC, t)
    pull = [1.0 + 2.0 * TC.friction * on_x, TC.friction / TC.mass + 2.0 * TC.friction * on_v]
    return np.eye(2) + t * float(TC.beta(t)) * np.array([[0.0, -1.0 / TC.mass], pull])


@pytest.mark.parametrize("solver, grid", golden.DENOISED_50)
def test_fifty_evaluations_with_the_denoising(solver, grid):
    """The paper's code counts the denoising's own call, which x does not use: 49 are made."""
    made = cases.plan(solver, 50, grid=grid, end="zero")
    assert made.nfe == 49
    assert made.rows[-1].new.keys() == {0}
    wanted = golden.DENOISED_50[solver, grid]
    assert cases.covariance(made)[0, 0] == pytest.approx(wanted[0], abs=5e-8)
    points = grids.points(TC, 49, grid, "t_min")
    before = cases.covariance(cases.plan(solver, 49, grid=grid))[:2, :2]
    matrix = denoising(points[-1].t)
    after = matrix @ before @ matrix.T
    assert (after[0, 0], after[0, 1], after[1, 1]) == pytest.approx(wanted, abs=5e-8)


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
    (kick,) = SSCS().kicks(System(TC, Velocity(mixed=True)), TC.at(0.5), TC.at(0.45))
    state = torch.tensor(golden.HALF, dtype=torch.float64)[:, None, None]
    output = float(cld_gaussian(process=TC).module.output(*state, 0.5))
    assert kick.v["S1"] * golden.HALF[1] + kick.v["raw"] * output == pytest.approx(
        golden.KICKED, abs=1e-8
    )
    after = cases.moved(made, golden.HALF, slice(kick_row, kick_row + 1))
    assert after == pytest.approx(golden.AFTER, abs=1e-8)
    assert list(cases.slope(TC, 0.5)) == pytest.approx(golden.SLOPE, abs=1e-8)
    em = cases.plan("cld_em", [0.5, 0.45])
    assert cases.moved(em, u, slice(1, 2)) == pytest.approx(golden.EM_AFTER, abs=1e-8)


def by_loop(solver, network, process, times, x, v, noise, denoise, **options):
    def score(x, v, t):
        given = (torch.as_tensor(a)[:, None] for a in (x, v))
        return network.module.score(*given, t)[:, 0].numpy()

    def slope(x, v, t, d=1e-4):
        near, far = (score(x, v + n * d, t) - score(x, v - n * d, t) for n in (1, 2))
        return np.diag((8.0 * near - far) / (12.0 * d))

    score.slope = slope
    return oracle(solver)(law(process), score, times, x, v, noise, denoise, **options)[0]


@pytest.mark.parametrize(
    "end, mixed",
    [("zero", False), ("zero", True), ("t_min", False)],
    ids=["zero-plain", "zero-mixed", "t_min-plain"],
)
@pytest.mark.parametrize("process", [CLD(numerical_eps=0.0), replace(VARYING, numerical_eps=0.0)])
@pytest.mark.parametrize(
    "solver, options",
    [(name, {}) for name in cases.OF_CLD if named(name)]
    + [("sscs", {"published": True})]
    + [("cld_exp", {"max_order": order}) for order in (1, 2)],
    ids=lambda v: v if isinstance(v, str) else ",".join(v),
)
def test_equals_the_loop(solver, options, process, end, mixed):
    """On a mixture, with the same normals; splittings with the noise of every half of the flow."""
    unmerged = {"merged": False} if solver.startswith("sscs") else {}
    network = cld_mixture(process=process, mixed=mixed)
    suited = linearized(network, 7) if solver == "sscs_exact" else network
    sampler = Sampler(
        suited, solver, 5, end=end, dtype=torch.float64, backend="torch", **options, **unmerged
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
    loop_s = {{"max_order": "order"}.get(name, name): value for name, value in options.items()}
    theirs = by_loop(solver, network, process, times, x, v, noise_of, end == "zero", **loop_s)
    # The loop of cld_exp integrates everything numerically, with an error of some 5e-8.
    assert ours == pytest.approx(theirs, rel=1e-8, abs=2e-7 if solver == "cld_exp" else 1e-8)


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
