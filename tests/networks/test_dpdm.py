"""DPDM's denoisers and samplers (Dockhorn et al. 2023)."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from analytic import network, propagated
from oracles.problems import TG, TM, edm_points

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.networks.prediction import DPDM
from diffusion_engine.processes import EDM, VP

# (c_skip, c_out, c_in, c_noise) as functions of sigma.
TABLE = {
    "edm": lambda s: (
        (1 / 3) / (s**2 + 1 / 3),
        s * math.sqrt(1 / 3) / math.sqrt(s**2 + 1 / 3),
        1 / math.sqrt(s**2 + 1 / 3),
        math.log(s) / 4,
    ),
    "v": lambda s: (
        1 / (s**2 + 1),
        s / math.sqrt(1 + s**2),
        1 / math.sqrt(1 + s**2),
        2 / math.pi * math.acos(1 / math.sqrt(1 + s**2)),
    ),
    "vesde": lambda s: (1, s, 1, math.log(s / 2)),
    "vpsde": lambda s: (
        1,
        -s,
        1 / math.sqrt(1 + s**2),
        999 * (math.sqrt(0.1**2 + 2 * 19.9 * math.log(1 + s**2)) - 0.1) / 19.9,
    ),
}


@pytest.mark.parametrize("name", DPDM)
@pytest.mark.parametrize("sigma", [0.002, 0.3, 1.0, 80.0])
def test_denoisers(name, sigma):
    skip, out, scale, label = TABLE[name](sigma)
    rule = DPDM[name]
    net = ScoreNetwork(lambda x, t: x, EDM(), (1,), prediction=rule, label=rule.c_noise)
    at = EDM().at(sigma)
    (p,), q = net.parameterisation.weights(at)
    assert (p, q, net.parameterisation.c_in(at)) == pytest.approx((skip, out, scale), rel=1e-12)
    assert net.parameterisation.label_of(at) == pytest.approx(label, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", DPDM)
@pytest.mark.parametrize("process", [EDM(), VP()])
def test_every_denoiser_makes_the_same_samples(name, process):
    exact, rule = network(TM, process), DPDM[name]
    options = {"prediction": rule, "label_dtype": torch.float64}

    def module(x, label):
        at = process.at(float(label[0]))
        state = x / rule.c_in(at)
        p, q = rule(at)
        return (exact.module(state, label) - p * state) / q

    net = ScoreNetwork(module, process, (1,), **options)
    ours = Sampler(net, "heun", 6, dtype=torch.float64).sample(4).samples
    want = Sampler(exact, "heun", 6, dtype=torch.float64).sample(4).samples
    assert torch.allclose(ours, want, rtol=1e-8, atol=1e-8)


def test_deterministic_ddim_is_euler_on_the_edm_grid():
    """49 steps of Euler in sigma over 50 levels, and a denoising."""
    x = np.array([40.0, -90.0, 3.0])
    made = Sampler(network(TM, EDM()), "euler", 50, dtype=torch.float64)
    ours = made.sample(x=torch.from_numpy(x)[:, None], noised=True).samples[:, 0].numpy()
    levels = [p.sigma for p in edm_points(50)[:-1]]
    for s, t in pairwise(levels):
        x = x + (t - s) * (x - TM.denoised(x, 1.0, s)) / s
    x = TM.denoised(x, 1.0, levels[-1])
    assert made.plan().nfe == 50
    assert ours == pytest.approx(x, rel=1e-9, abs=1e-11)


def test_stochastic_ddim_on_gaussian_data():
    sampler = Sampler(network(TG, EDM()), "dpdm_sde", 1000)
    assert propagated(sampler) == pytest.approx((0.3, 0.25), abs=6e-3)


def test_the_last_step_of_stochastic_ddim_denoises():
    plan = Sampler(network(TG, EDM()), "dpdm_sde", 5).plan()
    assert dict(plan.rows[-1].new[0]) == {"D": 1.0}
    at, then = plan.rows[1].call.at.sigma, plan.rows[2].call.at.sigma
    new, dt = plan.rows[1].new[0], then - at
    assert new["S0"] == pytest.approx(1 + 2 * dt / at)
    assert new["D"] == pytest.approx(-2 * dt / at)
    assert new["z0"] == pytest.approx(math.sqrt(2 * -dt * at))


@pytest.mark.parametrize("limit", [math.sqrt(2) - 1, 1.0])
def test_churn_has_a_limit(limit):
    options = {"s_churn": 100.0, "s_tmin": 0.05, "s_tmax": 50.0}
    plan = Sampler(network(TG, EDM()), "heun", 20, churn_limit=limit, **options).plan()
    points = [p.sigma for p in edm_points(20)]
    calls = [row.call.at.sigma for row in plan.rows[1::2]]
    for sigma, raised in zip(points, calls, strict=False):
        gamma = min(100.0 / 20, limit) if 0.05 <= sigma <= 50.0 else 0.0
        assert raised == pytest.approx(sigma * (1 + gamma), rel=1e-9)
    with pytest.raises(ValueError, match="churn_limit=-1"):
        Sampler(network(TG, EDM()), "heun", churn_limit=-1.0)
