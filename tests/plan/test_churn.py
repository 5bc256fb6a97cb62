"""Churn, the noise that EDM's samplers add before a step: at which levels, and how much of it."""

import math

import pytest
from analytic import network
from oracles.problems import TM

from diffusion_engine import Sampler
from diffusion_engine.processes import EDM, VP
from diffusion_engine.solvers import solver

SIGMAS = [20.0, 5.0, 2.9, 0.9, 0.28, 0.1]


def churned(name, process, **options):
    """(level before, level that the call reads) of every step, of a run with churn."""
    sampler = Sampler(network(TM, process), name, sigmas=SIGMAS, s_churn=2.0, **options)
    calls = [row.call.at.ratio for row in sampler.plan().rows[1:]]
    return list(zip(SIGMAS[:-1], calls[::2], strict=True))  # of two calls a step


@pytest.mark.parametrize("process", [EDM(), VP()], ids=["edm", "vp"])
@pytest.mark.parametrize("name", ["heun", "dpm_2"])
@pytest.mark.parametrize("low, high", [(0.28, 5.0), (0.3, 4.9), (2.9, 2.9), (0.0, math.inf)])
def test_levels_with_churn(name, process, low, high):
    """s_tmin to s_tmax, ends included; there a level is raised by s_churn / N, one of N steps."""
    for level, read in churned(name, process, s_tmin=low, s_tmax=high):
        raised = 1.0 + 2.0 / (len(SIGMAS) - 1) if low <= level <= high else 1.0
        assert read == pytest.approx(level * raised, rel=1e-9)


def test_a_limit_of_churn():
    for options, limit in (({}, math.sqrt(2.0) - 1.0), ({"churn_limit": 1.0}, 1.0)):
        own = solver("heun", s_churn=50.0, **options)
        at = EDM().at(2.0)
        raised, noise = own.churn(EDM(), at, 10)
        assert raised.ratio == pytest.approx(2.0 * (1.0 + limit))
        assert noise == pytest.approx(2.0 * math.sqrt((1.0 + limit) ** 2 - 1.0))
        twice = solver("heun", s_churn=50.0, s_noise=1.5, **options).churn(EDM(), at, 10)
        assert twice == (raised, pytest.approx(1.5 * noise))


@pytest.mark.parametrize("name", ["heun", "dpm_2"])
def test_churn_leaves_the_noise_of_its_level(name):
    """What is added to the state before the call makes up for the difference of the levels."""
    plan = Sampler(network(TM, EDM()), name, sigmas=SIGMAS, s_churn=2.0).plan()
    first = plan.rows[0]
    assert first.state == plan.rows[1].call.at
    level = math.hypot(first.new[0]["z0"], first.new[0]["z1"])
    assert level == pytest.approx(first.state.sigma) and level > SIGMAS[0]
    fresh = [i for i, row in enumerate(plan.rows[1:-1], 1) if row.draws(0)]
    assert fresh and all(plan.rows[i].state == plan.rows[i + 1].call.at for i in fresh)
    assert not plan.rows[-1].draws(0)  # no step follows
