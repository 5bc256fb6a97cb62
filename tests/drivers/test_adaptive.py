"""Adaptive steps against loops of their own, scipy's integrators and the ODE's solution."""

import numpy as np
import pytest
import torch
from optional import needs
from oracles import ode, problems
from oracles.adaptive import dpm_adaptive, runge_kutta
from oracles.common import Point as At

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import EDM, VE, VP, FlowMatching
from diffusion_engine.testing import Mixture

MIXTURE = Mixture()
PROBLEM = problems.Mixture(*(np.array(v) for v in (MIXTURE.weights, MIXTURE.means, MIXTURE.stds)))
PROCESSES = {"vp": VP(), "ve": VE(), "edm": EDM(), "flow": FlowMatching()}
N = 12  # elements of a sample
START = torch.linspace(-1.7, 1.9, N, dtype=torch.float64)  # in units of sigma


def run(process, driver, options, dtype=torch.float64, end="t_min", backend="torch", **how):
    """A sample from START, and its sampler."""
    network = MIXTURE.network(process, (N,))
    driver = {"name": driver, "options": options}
    sampler = Sampler(
        network, "euler", steps=4, end=end, dtype=dtype, backend=backend, driver=driver, **how
    )
    first = sampler.points[0]
    return sampler, sampler.sample(x=(first.sigma * START)[None], noised=True)


def told(point):
    return At(point.t, point.alpha, point.sigma, point.lam)


def oracle(sampler, loop, *args, **options):
    """What a loop makes of START."""

    def denoiser(x, p):
        return PROBLEM.denoised(x, p.alpha, p.sigma)

    def at(ratio):
        return told(sampler.network.process.at_ratio(ratio))

    ends = (told(p) for p in (sampler.points[0], sampler.points[-1]))
    x = sampler.points[0].sigma * START.numpy()
    return loop(denoiser, x, *ends, at, *args, **options)


def exact(sampler):
    first, last = sampler.points[0], sampler.points[-1]
    return ode.end(PROBLEM, first.sigma * START.numpy(), first, last)


def check(result, walk):
    report = result.reports[0]
    # A step's length follows from a difference of its ends, of which few digits are left.
    assert np.allclose(report["times"], [p.t for p in walk.points], rtol=1e-6, atol=0)
    assert (report["rejected"], report["calls"]) == (walk.rejected, walk.calls)
    assert report["calls"] == result.nfe and report["steps"] == len(walk.points)
    assert np.allclose(result.samples[0].numpy(), walk.x, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("pair", ["rk23", "rk45"])
def test_runge_kutta_is_the_oracle(process, pair):
    sampler, result = run(
        PROCESSES[process], "adaptive", {"pair": pair, "rtol": 1e-3, "atol": 2e-4}
    )
    walk = oracle(sampler, runge_kutta, pair, 1e-3, 2e-4, 0.01)
    check(result, walk)
    assert walk.rejected > 0


@pytest.mark.parametrize("process", ["vp", "edm"])
@pytest.mark.parametrize(
    "options",
    [
        {"order": 2, "atol": 1e-3},
        {"order": 3},
        {"order": 3, "pcoeff": 0.3, "icoeff": 0.6, "dcoeff": 0.1, "accept_safety": 0.95},
    ],
    ids=["12", "23", "23 pid"],
)
def test_dpm_adaptive_is_the_oracle(process, options):
    sampler, result = run(PROCESSES[process], "dpm_adaptive", options)
    named = {"safety" if k == "accept_safety" else k: v for k, v in options.items()}
    walk = oracle(sampler, dpm_adaptive, **named)
    check(result, walk)
    assert walk.rejected > 0


@pytest.mark.parametrize(("pair", "method"), [("rk23", "RK23"), ("rk45", "RK45")])
def test_runge_kutta_takes_the_steps_of_scipy(pair, method):
    """On flow matching the ODE is that of its own t, and the rule of steps scipy's."""
    sampler, result = run(
        PROCESSES["flow"], "adaptive", {"pair": pair, "rtol": 1e-3, "atol": 1e-4, "h_init": 0.03}
    )

    def rate(t, x):
        return PROBLEM.eps(x, 1 - t, t) - PROBLEM.denoised(x, 1 - t, t)

    made = needs("scipy.integrate").solve_ivp(
        rate, (1.0, sampler.points[-1].t), START.numpy(), method, rtol=1e-3, atol=1e-4, first_step=0.03
    )  # fmt: skip
    report = result.reports[0]
    assert np.allclose(report["times"], made.t[1:], rtol=1e-6) and report["calls"] == made.nfev
    assert np.allclose(result.samples[0].numpy(), made.y[:, -1], rtol=1e-8, atol=1e-9)


SWEEPS = [(process, pair) for process in PROCESSES for pair in ("rk23", "rk45", "dpm_adaptive")]
SHORT = (("vp", "rk23"), ("flow", "rk45"), ("edm", "dpm_adaptive"))


@pytest.mark.parametrize(
    ("process", "pair"),
    [pytest.param(*each, marks=() if each in SHORT else pytest.mark.slow) for each in SWEEPS],
)
def test_a_smaller_tolerance_leaves_a_smaller_error(process, pair):
    name, own = ("adaptive", {"pair": pair}) if pair.startswith("rk") else (pair, {})
    errors, steps = [], []
    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        options = {"rtol": tolerance, "atol": tolerance, **own}
        sampler, result = run(PROCESSES[process], name, options)
        errors.append(abs(result.samples[0].numpy() - exact(sampler)).max())
        steps.append(result.reports[0]["steps"])
    # Calls need not grow: how many steps are rejected is chance.
    assert errors == sorted(errors, reverse=True) and steps == sorted(steps)
    assert errors[-1] < 3e-5 and errors[0] > 300 * errors[-1]


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("name", ["adaptive", "dpm_adaptive"])
def test_a_smaller_tolerance_in_float32(process, name):
    errors = []
    for tolerance in (1e-2, 1e-3, 1e-4):
        options = {"rtol": tolerance, "atol": tolerance}
        sampler, result = run(PROCESSES[process], name, options, dtype=torch.float32, backend="cpp")
        errors.append(abs(result.samples[0].double().numpy() - exact(sampler)).max())
    assert errors == sorted(errors, reverse=True) and errors[-1] < 3e-3


@pytest.mark.parametrize("name", ["adaptive", "dpm_adaptive"])
def test_the_last_step_leads_to_clean_data(name):
    """By what the network says at the last noisy point, in one call more where that was not made."""
    noisy, before = run(PROCESSES["vp"], name, {})
    sampler, result = run(PROCESSES["vp"], name, {}, end="zero", grid="lambda")
    last = sampler.points[-2]
    wanted = PROBLEM.denoised(before.samples[0].numpy(), last.alpha, last.sigma)
    assert np.allclose(result.samples[0].numpy(), wanted, rtol=1e-9, atol=1e-11)
    assert result.nfe == before.nfe + (name == "dpm_adaptive")
    assert last == noisy.points[-1]


@pytest.mark.parametrize("name", ["adaptive", "dpm_adaptive"])
def test_where_x0_is_known_any_step_is_exact(name):
    """x moves on a straight line then, in whatever it is measured."""
    network = ScoreNetwork(
        lambda x, t: torch.full_like(x, 0.3), FlowMatching(), (N,), prediction="x0", clip=None
    )
    sampler = Sampler(
        network, "euler", driver=name, end="t_min", dtype=torch.float64, backend="torch"
    )
    result = sampler.sample(x=START[None], noised=True)
    last = sampler.points[-1]
    assert torch.allclose(
        result.samples[0], last.alpha * 0.3 + last.sigma * START, rtol=0, atol=1e-12
    )
    assert result.reports[0]["rejected"] == 0 and result.nfe < 30
