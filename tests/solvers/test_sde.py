"""Predictors of score SDEs and annealed Langevin dynamics: golden moments, oracles, algebra, errors."""

import math

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, network, propagated
from oracles.moments import output_moments
from oracles.predictor_corrector import ncsn
from oracles.problems import SCHEDULES, TG, TM
from oracles.problems import VE as VESchedule
from oracles.solvers import sample as oracle

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork
from diffusion_engine.networks.parameterisation import Parameterisation
from diffusion_engine.processes import (
    EDM,
    VE,
    VP,
    Discrete,
    FlowMatching,
    GaussianProcess,
    SubVP,
    grids,
)
from diffusion_engine.solvers import solver
from diffusion_engine.solvers.ald import PRESETS
from diffusion_engine.solvers.sde import Predictor
from diffusion_engine.testing import Gaussian

PUBLISHED = {"step": "1/N", "grid": "uniform"}

# Mean and variance of the last x_mean, and the variance of the last x, on N(0.3, 0.25) from N(0, 1).
EULER_MARUYAMA = [
    (100, 0.30131981, 0.25300679, 0.25420579),
    (1000, 0.30017691, 0.25023275, 0.25035265),
    (2000, 0.30011327, 0.25008980, 0.25014975),
]
FLOW_EULER = [(100, 0.25014834), (1000, 0.24977355), (2000, 0.24975840)]


def sampler_of(solver, process, steps=1, **options):
    return Sampler(Gaussian().network(process), solver, steps, **options)


def plan_of(*which, **options):
    return sampler_of(*which, **options).plan()


@pytest.mark.parametrize("n, mean, of_mean, of_x", EULER_MARUYAMA)
def test_euler_maruyama_on_gaussian_data(n, mean, of_mean, of_x):
    made = propagated(sampler_of("euler_maruyama", VP(), n, **PUBLISHED))
    assert made == pytest.approx((mean, of_mean), abs=1e-8)
    noisy = sampler_of("euler_maruyama", VP(), n, denoise=False, **PUBLISHED)
    assert propagated(noisy) == pytest.approx((mean, of_x), abs=1e-8)


@pytest.mark.parametrize("n, variance", FLOW_EULER)
def test_probability_flow_on_gaussian_data(n, variance):
    sampler = sampler_of("euler_maruyama", VP(), n, noise=False, **PUBLISHED)
    plan = sampler.plan()
    assert plan.normals == 0 or not any(row.draws(0) for row in plan.rows[1:])
    assert propagated(sampler)[1] == pytest.approx(variance, abs=1e-8)


def test_ancestral_is_ddpm_with_the_large_variance():
    sampler = sampler_of("ancestral", Discrete.linear(), 1000, grid="trailing")
    assert propagated(sampler) == pytest.approx((0.29999697, 0.25075208), abs=1e-8)


REFERENCE, CPP = (torch.float64, "torch", 1e-8), (torch.float32, "cpp", 1e-5)


def moments_of_a_run(solver, process, n, dtype, backend, **options):
    """Mean and variance of the samples from N(0, 1), by a run for every normal's weight."""

    def run(x, noise):
        made = {}

        def source(i, m, seeds):
            if (i, m) not in made:
                made[i, m] = torch.as_tensor(noise(i, m))[:, None]
            return made[i, m]

        sampler = Sampler(
            network(TG, process), solver, n, dtype=dtype, backend=backend, batch_size=len(x),
            **options,
        )  # fmt: skip
        out = sampler.sample(x=torch.as_tensor(x)[:, None], noised=True, noise=source)
        return out.samples[:, 0].double().numpy()

    return output_moments(run, 1.0, n)


@pytest.mark.parametrize(
    "n, mean, of_mean, of_x, dtype, backend, tolerance",
    [
        pytest.param(
            *row, *how, marks=[pytest.mark.slow] * (row[0] > (100 if how is REFERENCE else 1000))
        )
        for row in EULER_MARUYAMA
        for how in (REFERENCE, CPP)
    ],
)
def test_runs_of_euler_maruyama(n, mean, of_mean, of_x, dtype, backend, tolerance):
    made = moments_of_a_run("euler_maruyama", VP(), n, dtype, backend, **PUBLISHED)
    assert made == pytest.approx((mean, of_mean), abs=tolerance)
    if n == 100:
        noisy = {"denoise": False} | PUBLISHED
        made = moments_of_a_run("euler_maruyama", VP(), n, dtype, backend, **noisy)
        assert made == pytest.approx((mean, of_x), abs=tolerance)


@pytest.mark.parametrize("dtype, backend, tolerance", [REFERENCE, CPP])
@pytest.mark.parametrize("n, variance", FLOW_EULER)
def test_runs_of_the_probability_flow(n, variance, dtype, backend, tolerance):
    """Its samples are affine in x, so two are enough."""
    own = Sampler(
        network(TG, VP()), "euler_maruyama", n, noise=False, dtype=dtype, backend=backend, **PUBLISHED
    )  # fmt: skip
    zero, one = own.sample(x=torch.tensor([[0.0], [1.0]]), noised=True).samples.double()
    assert float(one - zero) ** 2 == pytest.approx(variance, abs=tolerance)


@pytest.mark.parametrize(
    "dtype, backend, tolerance", [pytest.param(*REFERENCE, marks=pytest.mark.slow), CPP]
)
def test_a_run_of_the_large_variance(dtype, backend, tolerance):
    made = moments_of_a_run("ancestral", Discrete.linear(), 1000, dtype, backend, grid="trailing")
    assert made == pytest.approx((0.29999697, 0.25075208), abs=tolerance)


def test_langevin_contracts_by_its_golden_number():
    """r = 0.16 on N(0, sigma^2): e = 0.0512 sigma^2, and x shrinks to 0.9488 x a step."""
    zero = ScoreNetwork(lambda x, label: 0.0 * x, VE(), (1,), prediction="x0")
    own = {"n_steps": 1, "snr": 0.16, "denoise": False, "times": [1.0, 0.5]}
    row = Sampler(zero, "ald", **own).plan().rows[1]
    assert row.new[0]["S0"] == pytest.approx(0.9488, rel=1e-12)
    assert row.new[0]["z0"] ** 2 / 2.0 == pytest.approx(0.0512 * 50.0**2, rel=1e-12)
    x = torch.tensor([[1.0], [-40.0]])
    for dtype, backend, _ in (REFERENCE, CPP):
        made = Sampler(zero, "ald", dtype=dtype, backend=backend, **own)
        end = made.sample(x=x, noised=True, noise=torch.zeros(3, 1, 2, 1)).samples
        assert torch.allclose(end, 0.9488**2 * x.to(dtype), rtol=1e-6, atol=0)  # two levels


def test_grids_of_the_predictors():
    """Uniform times where they were published, elsewhere the process's own."""
    for process in (VP(), SubVP(), VE()):
        times = [row.call.at.t for row in plan_of("ancestral" if process == VP() else
                 "euler_maruyama", process, 5).rows[1:]]  # fmt: skip
        assert times == pytest.approx(np.linspace(process.t_max, process.t_min, 5), rel=1e-12)
    levels = [row.call.at.sigma for row in plan_of("reverse_diffusion", EDM(), 5).rows[1:]]
    assert levels == pytest.approx([p.ratio for p in grids.karras(EDM(), 5)], rel=1e-12)


@pytest.mark.parametrize("name", ["euler_maruyama", "reverse_diffusion", "ancestral"])
@pytest.mark.parametrize("process", [VP(), SubVP(), VE()])
@pytest.mark.parametrize("step", ["grid", "1/N"])
def test_finer_steps_come_nearer_to_the_data(name, process, step):
    if name == "ancestral" and isinstance(process, SubVP):
        pytest.skip("no chain")
    errors = []
    for n in (250, 1000):
        mean, variance = propagated(sampler_of(name, process, n, step=step))
        errors.append(abs(mean - 0.3) + abs(variance - 0.25))
    assert errors[1] < max(0.5 * errors[0], 1e-3) < 2e-2


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("name", ["euler_maruyama", "reverse_diffusion", "ancestral"])
@pytest.mark.parametrize("schedule", ["vp", "subvp", "ve"])
@pytest.mark.parametrize("denoise", [True, False])
def test_published_steps_equal_the_oracle(name, schedule, noise, denoise):
    if name == "ancestral" and (schedule == "subvp" or not noise):
        pytest.skip("not defined")
    process, n = BY_SCHEDULE[schedule], 25
    options = {"step": "1/N", "denoise": denoise} | ({} if noise else {"noise": False})
    points = [SCHEDULES[schedule].point(t) for t in np.linspace(1.0, process.t_min, n)]
    points.append(SCHEDULES[schedule].clean())
    x = np.array([0.7, -1.3, 0.1]) * process.prior_std(process.at(1.0))
    draws = np.random.default_rng(0).standard_normal((n, len(x))).astype(np.float32).astype(float)
    made = Sampler(network(TM, process), name, n, dtype=torch.float64, backend="torch", **options)
    normals = torch.from_numpy(draws)[..., None]
    start = torch.from_numpy(x)[:, None]
    ours = made.sample(x=start, noised=True, noise=lambda i, m, seeds: normals[i - 1])
    options.pop("noise", None)
    theirs = oracle(
        name, TM.denoiser, SCHEDULES[schedule], points, x, lambda i, m: draws[i],
        **options, **({} if noise else {"ode": True}),
    )  # fmt: skip
    # The oracle's schedule of VE differs in the last bits, which its scores of 1e-2 levels magnify.
    assert ours.samples[:, 0].numpy() == pytest.approx(theirs, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", [n for n, kind in SOLVERS.items() if issubclass(kind, Predictor)])
@pytest.mark.parametrize("process", [VP(), SubVP(), VE(), EDM()], ids=lambda p: type(p).__name__)
def test_rows_keep_signal_and_noise_to_second_order(name, process):
    """M.2: a alpha_s + D = alpha_t + O(d^2), and the variance of noise likewise."""
    t = 0.4 * process.t_max
    signal, noise = [], []
    for d in (0.02, 0.01):
        times = [t, t * (1.0 - d), t * (1.0 - 2.0 * d)]
        points = grids.from_times(process, times)
        if SOLVERS[name]().objection(Parameterisation(process, (1,)), points):
            pytest.skip("does not suit")
        row = plan_of(name, process, 2, times=times).rows[1]
        new, s, end = row.new[0], points[0], points[1]
        signal.append(new["S0"] * s.alpha + new["D"] - end.alpha)
        noise.append((new["S0"] * s.sigma) ** 2 + new["z0"] ** 2 - end.sigma**2)
    for errors in (signal, noise):
        if abs(errors[0]) > 1e-12:
            assert math.log2(abs(errors[0] / errors[1])) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("process", [VP(), SubVP(), VE(), EDM(), FlowMatching(), Discrete.linear()])
def test_drift_and_diffusion_belong_to_alpha_and_sigma(process):
    discrete = isinstance(process, Discrete)
    t = np.arange(100.0, 900.0, 50.0) if discrete else np.linspace(0.1, 0.9, 9) * process.t_max
    # A chain's beta is that of the step that leads to t.
    h, middle = (0.5, t - 0.5) if discrete else (1e-5 * process.t_max, t)
    tolerance = 1e-3 if discrete else 1e-6
    rate = (np.log(process.alpha(middle + h)) - np.log(process.alpha(middle - h))) / (2.0 * h)
    drift, diffusion = process.drift(t), process.diffusion(t)
    assert drift == pytest.approx(rate, rel=15 * tolerance, abs=1e-9)
    growth = (process.sigma(middle + h) ** 2 - process.sigma(middle - h) ** 2) / (2.0 * h)
    wanted = growth - 2.0 * drift * process.sigma(middle) ** 2
    assert diffusion == pytest.approx(wanted, rel=15 * tolerance)


def test_presets_are_those_published():
    assert PRESETS == {
        "ncsn": (100, 0.316),
        "ncsnv2": (5, 0.176),
        "ncsnv2-celeba": (5, 0.128),
        "ncsnv2-bedroom": (3, 0.095),
    }


@pytest.mark.parametrize("shape", [(3, 1, 2, 1), (6, 0, 2, 1), (6, 1, 1, 1), (6, 1)])
def test_too_few_given_normals(shape):
    own = Sampler(network(TG, VP()), "euler_maruyama", 5)
    with pytest.raises(ValueError, match=r"noise has shape .* give \[rows, draws, n, \*shape\]"):
        own.sample(2, noise=torch.zeros(shape))


@pytest.mark.parametrize("preset", PRESETS)
def test_annealed_langevin(preset):
    count, snr = PRESETS[preset]
    plan = plan_of("ald", VE(sigma_max=1.0), 4, preset=preset)
    assert plan.nfe == 4 * count + 1 and solver("ald", preset=preset).calls == count
    rows = plan.rows[1:-1]
    levels = [row.call.at.sigma for row in rows[::count]]
    assert levels == pytest.approx(np.geomspace(1.0, 0.01, 4), rel=1e-3)
    e = 2.0 * (snr * rows[0].call.at.sigma) ** 2
    assert rows[0].new[0]["z0"] == pytest.approx(math.sqrt(2.0 * e))
    assert rows[0].new[0]["S0"] == pytest.approx(1.0 - e / rows[0].call.at.sigma ** 2)
    assert plan.rows[-1].new[0].weights == (("D", 1.0),)


@pytest.mark.parametrize("eps, n_steps", [(2e-5, 100), (1e-5, 7)])
def test_ncsn_as_published_equals_the_oracle(eps, n_steps):
    """Ten levels from 1 to 0.01, e_i = eps (sigma_i / sigma_L)^2: snr = sqrt(eps / 2) / sigma_L."""
    levels = np.geomspace(1.0, 0.01, 10)
    snr = math.sqrt(eps / 2.0) / 0.01
    draws = np.random.default_rng(1).standard_normal((10, n_steps, 4), np.float32).astype(float)
    normals = torch.from_numpy(draws.reshape(-1, 4))[..., None]
    made = Sampler(
        network(TM, VE(sigma_max=1.0)), "ald", 10, n_steps=n_steps, snr=snr, denoise=False,
        sigmas=levels, dtype=torch.float64, backend="torch",
    )  # fmt: skip
    x = np.random.default_rng(2).uniform(size=4)
    ours = made.sample(
        x=torch.from_numpy(x)[:, None], noised=True, noise=lambda i, m, seeds: normals[i - 1]
    )
    points = [VESchedule(0.01, 1.0).point(p.t) for p in made.points]
    theirs = ncsn(TM.denoiser, points, x, lambda i, j: draws[i, j], eps=eps, n_steps=n_steps)
    assert ours.nfe == 10 * n_steps
    assert ours.samples[:, 0].numpy() == pytest.approx(theirs, rel=1e-9, abs=1e-9)
    first = plan_of("ald", VE(sigma_max=1.0), 10).rows[1].new[0]  # whose snr is 0.316
    assert first["z0"] ** 2 / 2.0 == pytest.approx(2e-5 / 0.01**2, rel=2e-3)


def test_langevin_reaches_its_stationary_variance():
    """v / (1 - e / (2 v)) of N(m, v): the step is too long by just so much."""
    process = VE(sigma_max=2.0)
    how = {"n_steps": 4000, "snr": 0.3, "denoise": False}
    sampler = sampler_of("ald", process, times=[0.5, -1.0], **how)
    at = sampler.points[0]
    v, e = 0.25 + at.sigma**2, 2.0 * (0.3 * at.sigma) ** 2
    mean, variance = propagated(sampler, 9.0)
    assert (mean, variance) == pytest.approx((0.3, v / (1.0 - e / (2.0 * v))), rel=1e-9)


@pytest.mark.parametrize(
    "name", ["euler_maruyama", "reverse_diffusion", "ancestral", "ald", "dpdm_sde"]
)
def test_float32_on_cpp(name):
    process, own = VP(), {"n_steps": 3} if name == "ald" else {}
    draws = {}

    def noise(i, m, seeds):
        rng = np.random.default_rng([i, m])
        return torch.from_numpy(draws.setdefault((i, m), rng.standard_normal((len(seeds), 1))))

    made = [
        Sampler(network(TM, process), name, 60, dtype=dtype, backend=backend, **own).sample(
            8, noise=noise
        )
        for dtype, backend in ((torch.float64, "torch"), (torch.float32, "cpp"))
    ]
    assert torch.allclose(made[0].samples.float(), made[1].samples, rtol=0, atol=2e-3)


class Own(GaussianProcess):
    def alpha(self, t):
        return np.cos(t)

    def sigma(self, t):
        return np.sin(t)

    def t_of_lam(self, lam):
        return np.arctan(np.exp(-lam))


OWN = Own(t_min=0.01, t_max=1.5)


@pytest.mark.parametrize(
    "name, process, options, message",
    [
        ("euler_maruyama", VP(), {"step": "2/N"}, "step='2/N': choose 'grid' or '1/N'"),
        ("euler_maruyama", OWN, {}, "Own says no drift\\(t\\); use 'reverse_diffusion'"),
        ("euler_maruyama", EDM(), {"step": "1/N"}, "published for VP, sub-VP and VE, not EDM"),
        ("euler_maruyama", VP(), {"step": "1/N", "grid": "lambda"}, "needs uniform times from t=1"),
        ("reverse_diffusion", VP(), {"step": "1/N"}, "take more than 20"),
        ("ancestral", SubVP(), {}, "sub-VP is no chain"),
        ("ancestral", FlowMatching(), {}, "alpha is 0 at its first time"),
        ("ald", VE(), {"preset": "ncsnv3"}, "preset='ncsnv3': choose ncsn, "),
        ("ald", VE(), {"n_steps": 0}, "n_steps=0, snr=0.316"),
        ("ald", VE(), {"n_steps": 2.5}, "n_steps=2.5: give an integer"),
        ("reverse_diffusion", VE(), {"step": "1/N", "end": "t_min"}, "takes its last step to clean data"),
        ("ald", VE(), {"snr": 1.5}, "an snr between 0 and 1"),
    ],
)  # fmt: skip
def test_bad_input(name, process, options, message):
    net = ScoreNetwork(lambda x, label: x, process, (1,), prediction="x0")
    with pytest.raises(ValueError, match=message):
        Sampler(net, name, 10, **options)
