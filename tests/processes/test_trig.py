"""TrigFlow: its law, its network, and what SANA-Sprint makes of a network of straight paths."""

import math

import numpy as np
import pytest
import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.networks.prediction import Trig
from diffusion_engine.processes import EDM, FlowMatching, TrigFlow
from diffusion_engine.processes.levels import levels
from diffusion_engine.testing import Gaussian

DOUBLE = {"dtype": torch.float64, "backend": "torch"}
T = np.linspace(0.1, 1.4, 7)


@pytest.mark.parametrize("data", [0.5, 1.0, 2.0])
def test_the_law(data):
    process, h = TrigFlow(sigma_data=data), 1e-6
    assert process.alpha(T) ** 2 + (process.sigma(T) / data) ** 2 == pytest.approx(1.0, abs=1e-15)
    assert process.t_of_lam(process.lam(T)) == pytest.approx(T, rel=1e-12)
    alpha, square = process.alpha, lambda t: process.sigma(t) ** 2
    drift = (np.log(alpha(T + h)) - np.log(alpha(T - h))) / (2.0 * h)
    growth = (square(T + h) - square(T - h)) / (2.0 * h)
    assert process.drift(T) == pytest.approx(drift, rel=1e-8)
    assert process.diffusion(T) == pytest.approx(growth - 2.0 * drift * square(T), rel=1e-8)
    own = levels(process, torch.from_numpy(T))
    assert [part.tolist() for part in own] == [
        pytest.approx(part.tolist(), rel=1e-15) for part in (process.alpha(T), process.sigma(T))
    ]
    assert process.noisiest.alpha == 0.0 and process.at(0.0) == process.clean


@pytest.mark.parametrize("process", [TrigFlow(sigma_data=0.7), EDM(), FlowMatching()], ids=str)
def test_the_network_is_read_on_every_process(process):
    """o = (cos sigma_data eps - sin x0) / sigma_data at the angle, of a state in any scale."""
    rule, x0, eps = Trig(0.7), 0.4, -1.3
    at = process.at(0.6)
    angle = rule.c_noise(at)
    state = at.alpha * x0 + at.sigma * eps
    output = math.cos(angle) * eps - math.sin(angle) * x0 / 0.7
    p, q = rule(at)
    assert p * state + q * output == pytest.approx(x0, rel=1e-12)
    assert rule.c_in(at) * state == pytest.approx(
        (math.cos(angle) * x0 + math.sin(angle) * 0.7 * eps) / 0.7, rel=1e-12
    )
    if isinstance(process, TrigFlow):
        assert (angle, rule.c_in(at)) == pytest.approx((0.6, 1.0 / 0.7), rel=1e-12)


def straight(x, t, mean=0.3, std=0.5):
    """The velocity of Gaussian data on straight paths."""
    t = t.view(-1, 1)
    gain = (1.0 - t) * std**2 / ((1.0 - t) ** 2 * std**2 + t**2)
    x0 = mean + gain * (x - (1.0 - t) * mean)
    return (x - x0) / t


def test_sana_sprint_is_scm_on_straight_paths():
    """Its pipeline turns states and outputs from one law to the other around every call; here is no need."""
    noise = torch.randn(2, 1, 2, 5).double()
    network = ScoreNetwork(straight, FlowMatching(), (5,), "flow", label_dtype=torch.float64)
    sampler = Sampler(network, "scm", 2, **DOUBLE)
    made = sampler.sample(2, noise=torch.cat([noise, noise[:1]])).samples
    x, angles = noise[0, 0], [0.5 * math.pi, 1.3, 0.0]
    for s, t, z in zip(angles, angles[1:], [noise[1, 0], torch.zeros(2, 5)], strict=False):
        u = math.sin(s) / (math.cos(s) + math.sin(s))
        size = math.hypot(u, 1.0 - u)
        given = size * x
        told = torch.full((2,), u, dtype=torch.float64)
        output = (
            (1.0 - 2.0 * u) * given + (1.0 - 2.0 * u + 2.0 * u * u) * straight(given, told)
        ) / size
        x = math.cos(t) * (math.cos(s) * x - math.sin(s) * output) + math.sin(t) * z
    torch.testing.assert_close(made, x, rtol=0, atol=1e-12)
    assert [p.t for p in sampler.points[:2]] == pytest.approx(
        [1.0, math.sin(1.3) / (math.cos(1.3) + math.sin(1.3))], rel=1e-12
    )


def test_a_network_of_trigflow_is_solved():
    """The ODE of Gaussian data, with the network in the form that it is trained in."""
    process, data = TrigFlow(), Gaussian()

    def trained(x, t):
        t = t.view(-1, 1)
        cos, sin, state = t.cos(), t.sin(), 0.5 * x
        x0 = data.denoised(state, cos, 0.5 * sin)
        return (cos * state - x0) / (0.5 * sin)

    network = ScoreNetwork(trained, process, (3,), Trig(), label_dtype=torch.float64)
    times = [1.5, 1.2, 0.8, 0.3]
    for solver in ("heun", "dpmpp_2m", "tcd", "lcm"):
        one, same = (
            Sampler(net, solver, times=times, **DOUBLE).sample(4).samples
            for net in (network, data.network(process, (3,)))
        )
        torch.testing.assert_close(one, same, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: TrigFlow(sigma_data=0.0), "sigma_data=0"),
        (lambda: TrigFlow(t_max=1.6), "t_max=1.6"),
        (
            lambda: Sampler(Gaussian().network(TrigFlow()), "scm", 2, intermediate=2.0),
            "intermediate=2",
        ),
        (lambda: Sampler(Gaussian().network(TrigFlow()), "tcd", 2, eta=2.0), "eta=2"),
        (lambda: Sampler(Gaussian().network(TrigFlow()), "tcd", 2, original=0), "original=0"),
    ],
)
def test_errors(make, text):
    with pytest.raises(ValueError) as caught:
        make()
    assert text in str(caught.value)
