"""GENIE's solver on the exact derivative: its end values, order, oracle, grids and calls."""

import copy
import math

import numpy as np
import pytest
import torch
from analytic import BY_SCHEDULE, points_of
from columns import F64, column
from genie_cases import EXACT, GRIDS, run
from oracles import golden
from oracles.genie import genie as oracle
from oracles.problems import SCHEDULES, TM
from tape import TapeRecorder, taped

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import stages
from diffusion_engine.genie import exact_derivative
from diffusion_engine.processes import VP
from diffusion_engine.processes.levels import Levels
from diffusion_engine.testing import labelled_mixture as mixture

ENDS = [
    ("lam", 0.7, 0.226720715, 0.235959441),
    ("lam", -1.3, -0.944255741, -0.960434090),
    ("karras", 0.7, 0.226816908, 0.235764021),
    ("t", 0.7, 0.254828430, 0.195030707),
]
ERRORS = {
    0.7: ((1.14e-2, 2.21e-3, 4.91e-4, 1.13e-4, 2.70e-5), 2.07),
    -1.3: ((2.48e-2, 8.63e-3, 2.28e-3, 5.84e-4, 1.48e-4), 1.98),
}


@pytest.mark.parametrize("grid, x_T, at_10, at_20", ENDS)
def test_end_values(grid, x_T, at_10, at_20):
    for steps, value in ((10, at_10), (20, at_20)):
        made, _ = run([x_T], steps, GRIDS[grid])
        assert float(made[0]) == pytest.approx(value, abs=1e-8)
        fast = Sampler(EXACT, "genie", steps, grid=GRIDS[grid], end="t_min", backend="cpp")
        single = fast.sample(x=torch.tensor([[x_T]]), noised=True).samples
        assert float(single) == pytest.approx(value, abs=2e-5)


def test_convergence():
    made = np.array([run(list(ERRORS), n)[0] for n in golden.ERROR_STEPS])
    for values, (x_T, (want, order)) in zip(made.T, ERRORS.items(), strict=True):
        errors = np.abs(values - golden.EXACT_END[x_T])
        assert list(errors) == pytest.approx(want, rel=5.1e-3)  # three digits are printed
        assert math.log2(errors[-2] / errors[-1]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("grid", ["karras", "t"])
def test_second_order_on_every_grid(grid):
    ends = list(golden.EXACT_END)
    errors = [run(ends, n, GRIDS[grid])[0] - list(golden.EXACT_END.values()) for n in (80, 160)]
    assert np.log2(np.abs(errors[0] / errors[1])) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("schedule", ["vp", "subvp", "ve", "edm", "flow", "ddpm", "cosine"])
@pytest.mark.parametrize(
    "afs, denoise", [(False, False), (True, False), (False, True), (True, True)]
)
def test_equals_oracle(schedule, afs, denoise):
    process = BY_SCHEDULE[schedule]
    t = np.linspace(1.0, 0.05, 7) ** 1.5 * (
        800 if schedule in ("ddpm", "cosine") else 0.99 * process.t_max
    )
    t = np.round(t) if schedule in ("ddpm", "cosine") else t
    points = [SCHEDULES[schedule].point(time) for time in t]
    network = exact_derivative(mixture(process))
    sampler = Sampler(network, "genie", times=points_of(points), afs=afs, denoise=denoise, **F64)
    x = np.array([0.7, -1.3, 0.1]) * process.prior_std(process.at(float(t[0])))
    made = sampler.sample(x=column(*x), noised=True).samples[:, 0].numpy()
    want = oracle(TM, points, x, afs=afs, denoise=denoise)
    # The discrete table's kinks: its slope at a timestep is the central difference.
    tolerance = 1e-3 if schedule in ("ddpm", "cosine") else 1e-9
    assert np.abs(made - want).max() < tolerance * max(1.0, np.abs(want).max())
    assert sampler.plan().nfe == len(points) - 1 - afs + denoise


def test_grids_of_the_paper():
    quadratic = Sampler(EXACT, "genie", 5, grid="quadratic", end="t_min").points
    assert [p.t for p in quadratic] == pytest.approx(
        [1, 0.65015929, 0.37533893, 0.17553893, 0.05075929, 0.001], abs=1e-8
    )
    ratios = [152.166970, 8.40176924, 1.79378677, 0.618755196, 0.176603061, 0.0104859928]
    assert [p.ratio for p in quadratic] == pytest.approx(ratios, rel=1e-8)
    linear = Sampler(EXACT, "genie", 5, grid="uniform", end="t_min").points
    ratios = [152.166970, 25.1488524, 6.11166251, 2.03442934, 0.723806767, 0.0104859928]
    assert [p.ratio for p in linear] == pytest.approx(ratios, rel=1e-8)


def test_a_step_is_one_call_and_one_launch(monkeypatch):
    recorder, launches = TapeRecorder(), []

    def resolve(*arguments):
        step = taped(RESOLVE)(*arguments)
        return lambda outs=(): (launches.append(len(outs)), step(outs))[1]

    RESOLVE = stages.resolve
    calls = []

    def module(x, t, y=None):
        calls.append(len(x))
        return EXACT.module(x, t, y)

    network = copy.copy(EXACT)
    object.__setattr__(network, "module", module)
    monkeypatch.setattr(stages, "resolve", lambda *a: resolve(*a))
    for afs, denoise in ((False, False), (True, True), (True, False)):
        calls.clear(), launches.clear()
        sampler = Sampler(network, "genie", 6, end="t_min", afs=afs, denoise=denoise, backend="cpp")
        made = sampler.sample(3)
        nfe = 6 - afs + denoise
        assert calls == [3] * nfe and made.nfe == nfe
        assert launches == [0] + [2] * nfe  # row 0 alone reads no output
    assert recorder.recorded == 0


def test_end_zero_ends_with_the_denoising_call():
    to_zero = Sampler(EXACT, "genie", 7, end="zero", **F64)
    denoised = Sampler(EXACT, "genie", 6, end="t_min", denoise=True, **F64)
    x = column(0.7, -1.3)
    a, b = (s.sample(x=x, noised=True).samples for s in (to_zero, denoised))
    assert torch.equal(a, b)


def test_analytic_first_step_from_the_prior_and_an_image():
    plain, afs = (Sampler(EXACT, "genie", 5, end="t_min", afs=on, **F64) for on in (False, True))
    points, z = afs.points, plain.plan().rows[0].new[0]
    first = afs.plan().rows[0]
    # eps is x itself for VP
    moved = points[1].alpha * (1 / points[0].alpha + points[1].ratio - points[0].ratio)
    assert first.new[0]["z0"] == pytest.approx(moved * z["z0"], rel=1e-12)
    assert first.state == points[1] and first.call is None
    image = afs.plan(start=0.8, kind="image").rows[0]
    assert image.new[0]["S0"] / image.new[0]["z0"] == pytest.approx(
        VP().at(0.8).alpha / VP().at(0.8).sigma
    )
    with pytest.raises(ValueError, match="at least 2 steps"):
        Sampler(EXACT, "genie", 1, end="t_min", afs=True)


def test_gaussian_data_and_point_masses():
    """A point mass has a constant eps: one step is exact. N(0, 1) has d eps / dg = x / (1 + g^2)^1.5."""
    point = exact_derivative(mixture(weights=[1.0], means=[0.4], stds=[0.0]))
    made, sampler = run([1.1], 1, network=point)
    at, end = sampler.points
    eps = (1.1 - at.alpha * 0.4) / at.sigma
    assert float(made[0]) == pytest.approx(end.alpha * 0.4 + end.sigma * eps, abs=1e-12)
    unit = exact_derivative(mixture(weights=[1.0], means=[0.0], stds=[1.0]))
    x, t = column(0.7, -0.4), torch.tensor([0.3, 0.9], dtype=torch.float64)
    found, slope = unit.module(x, t)
    g = Levels.of(VP(), t).ratio[:, None]
    assert (found - x * g / (1 + g * g).sqrt()).abs().max() < 1e-12
    assert (slope - x / (1 + g * g) ** 1.5).abs().max() < 1e-12


def test_heads_are_mixed_with_their_weights():
    """Heads that add up to the exact derivative give the same samples, whatever each of them is."""

    def module(x, t):
        eps, slope = EXACT.module(x, t)
        g = Levels.of(VP(), t).ratio[:, None].to(x.dtype)
        k1, k2 = 0.3 * slope + x, torch.sin(x)
        k3 = (slope + k1 / g - g / (1 + g * g) * k2) * g * (1 + g * g)
        return torch.cat((eps, k1, k2, k3), dim=1)

    heads = ScoreNetwork(module, VP(), (1,), label_dtype=torch.float64, derivative="heads")
    x = column(0.7, -1.3)
    a, b = (
        Sampler(network, "genie", 10, end="t_min", **F64).sample(x=x, noised=True).samples
        for network in (heads, EXACT)
    )
    assert (a - b).abs().max() < 1e-9
    plan = Sampler(heads, "genie", 10).plan()
    assert plan.outputs == 4 and plan.slots == 1
    assert plan.rows[1].channel_blocks == (0, 1, 2, 3) and plan.rows[1].e[0] == 0.0
    single = (
        Sampler(heads, "genie", 10, end="t_min", backend="cpp").sample(x=x, noised=True).samples
    )
    reference = Sampler(heads, "genie", 10, end="t_min", backend="torch", dtype=torch.float32)
    assert torch.equal(single, reference.sample(x=x, noised=True).samples)
