"""The exact networks that ship, against the tests' own."""

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE
from oracles import problems

from diffusion_engine import SOLVERS, Sampler
from diffusion_engine.processes import EDM, VP, FlowMatching
from diffusion_engine.testing import (
    ConsistencyFunction,
    Gaussian,
    Mixture,
    MixtureStudent,
    exact_network,
)

DATA = {"gaussian": (Gaussian(), problems.TG), "mixture": (Mixture(), problems.TM)}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("schedule", BY_SCHEDULE)
@pytest.mark.parametrize("prediction", ["x0", "eps"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_oracle_at_mixed_times(name, schedule, prediction, dtype):
    ours, exact = DATA[name]
    process = BY_SCHEDULE[schedule]
    net = ours.network(process, (5,), prediction)
    times = np.array([0.02, 0.3, 0.95]) * process.t_max
    points = [process.at(float(t)) for t in times]
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    x *= torch.tensor([[p.sigma + p.alpha] for p in points], dtype=dtype)
    scale = torch.tensor([[net.parameterisation.c_in(p)] for p in points], dtype=dtype)
    label = torch.tensor([net.parameterisation.label_of(p) for p in points], dtype=torch.float64)
    (made,) = net(scale * x, label, None)
    assert made.dtype == dtype
    rule = exact.denoised if prediction == "x0" else exact.eps
    want = np.stack(
        [rule(r, p.alpha, p.sigma) for r, p in zip(x.double().numpy(), points, strict=True)]
    )
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    assert made.double().numpy() == pytest.approx(want, rel=tolerance, abs=tolerance)


def test_pure_noise_says_the_mean_of_the_data():
    net = Mixture().network(FlowMatching())
    at = FlowMatching().at(1.0)
    (made,) = net(
        torch.ones(1, 1),
        torch.tensor([net.parameterisation.label_of(at)], dtype=torch.float64),
        None,
    )
    assert float(made) == pytest.approx(0.3 * -0.9 + 0.5 * 0.1 + 0.2 * 0.8, abs=1e-6)


@pytest.mark.parametrize("solver", ["dpmpp_2m", "heun"])
def test_a_solver_tried_on_the_mixture(solver):
    end = Sampler(Mixture().network(VP()), solver, 80, dtype=torch.float64, end="t_min")
    made = end.sample(x=torch.tensor([[0.7], [-1.3]]), noised=True).samples[:, 0]
    assert made.tolist() == pytest.approx([0.238166111181, -0.969062451304], abs=2e-3)


def test_consistency_function():
    f = ConsistencyFunction()
    x = torch.linspace(-3.0, 3.0, 7, dtype=torch.float64)
    sigma = torch.tensor(0.002, dtype=torch.float64)
    assert torch.allclose(f(x, sigma), x)
    net = f.network((7,))
    for level in (80.0, 1.0, 0.01):
        at = EDM().at(level)
        (p,), q = net.parameterisation.weights(at)
        label = torch.tensor([net.parameterisation.label_of(at)], dtype=torch.float64)
        (inner,) = net(net.parameterisation.c_in(at) * x[None], label, None)
        want = f(x, torch.tensor(level, dtype=torch.float64))
        assert torch.allclose(p * x + q * inner[0], want, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Gaussian(std=0.0), "std=0"),
        (lambda: Mixture(weights=(1.0,)), "1 weights, 3 means and 3 stds"),
        (lambda: Mixture(stds=(0.1, 0.0, 0.2)), "above 0"),
        (lambda: Gaussian().network(VP(), prediction="v"), "predicts 'x0' or 'eps'"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_students_map_is_the_end_of_the_ode():
    """algorithms.md's reference values of the mixture at t = 1e-3, from x = 0.7 and -1.3 at t = 1."""
    first, last = VP().at(1.0), VP().at(1e-3)
    x = torch.tensor([0.7, -1.3], dtype=torch.float64)[:, None]
    student = MixtureStudent(sigma_min=last.sigma / last.alpha)
    end = student(x / first.alpha, torch.tensor([[first.sigma / first.alpha]], dtype=torch.float64))
    want = [0.238166111181, -0.969062451304]
    assert (last.alpha * end)[:, 0].tolist() == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize(
    "name, steps", [("consistency", 1), ("consistency", 3), ("lcm", 2), ("ddgan", 4)]
)
def test_perfect_students_draw_the_mixture(name, steps):
    n = 1 << 14
    network = exact_network(name, (2,))
    made = Sampler(network, name, steps, batch_size=n).sample(n).samples.double().flatten()
    data = Mixture()
    weights, means, stds = (torch.tensor(v) for v in (data.weights, data.means, data.stds))
    mean = float((weights * means).sum())
    std = float((weights * (stds**2 + means**2)).sum() - mean**2) ** 0.5
    assert float(made.mean()) == pytest.approx(mean, abs=4 * std / (2 * n) ** 0.5)
    low = float((made < -0.4).double().mean())  # between two components
    assert low == pytest.approx(0.3, abs=0.01)


def test_exact_networks_are_made_for_solvers_of_a_users_own():
    class Own(SOLVERS["euler"]):
        name = "own"

    assert Sampler(exact_network(Own()), Own(), 4).sample(2).finite == [True, True]
    with pytest.raises(ValueError, match="unknown solver 'nope'"):
        exact_network("nope")
