"""Runs of CLD: starts, samples, executors, guidance, recipes, networks with derivatives."""

import itertools

import cld_cases as cases
import numpy as np
import pytest
import torch
from batches import jobs_of, together
from cld_cases import DATA, OF_CLD, VARYING, elementwise, suited
from tape import TapeRecorder, taped
from torch import nn

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork
from diffusion_engine.executors import Graph, stages
from diffusion_engine.networks.linearize import linearized
from diffusion_engine.plan import Plan
from diffusion_engine.processes import CLD
from diffusion_engine.sampler.named import executor
from diffusion_engine.solvers.cld import flow
from diffusion_engine.testing import cld_gaussian, cld_mixture

STOCHASTIC = [(name, {}) for name in OF_CLD if SOLVERS[name]().stochastic]
STOCHASTIC += [("sscs", {"merged": False}), ("sscs2", {"merged": False})]


@pytest.mark.parametrize("solver", OF_CLD)
def test_image_start(solver):
    """x and v come from the kernel at the start, and splittings flow from there to their first call."""
    made = cases.plan(solver, [0.4, 0.3], VARYING, start="image")
    _, matrix, noise, _ = cases.maps(made, VARYING)[0]
    spread = DATA * np.outer(matrix[:2, 0], matrix[:2, 0]) + noise[:2] @ noise[:2].T
    wanted = cases.target(VARYING, 0.4)
    if solver.startswith("sscs"):
        a, gathered = flow(VARYING, float(VARYING.integral(0.4) - VARYING.integral(0.35)))
        wanted = a @ wanted @ a.T + gathered
    assert spread == pytest.approx(wanted, abs=1e-14)
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
    launches, calls, real = [], [], stages.resolve

    def counted(*given):
        launch = real(*given)
        return lambda outs: (launches.append(len(outs)), launch(outs))

    monkeypatch.setattr(stages, "resolve", counted)
    network = suited(solver, cld_mixture())
    inner = network.module
    network = network.with_module(lambda u, t: (calls.append(u.shape), inner(u, t))[1])
    result = Sampler(network, solver, 6).sample(3)
    assert len(calls) == result.nfe == 5 * SOLVERS[solver].calls
    assert set(calls) == {(3, 2)}
    assert launches == [0] + [1] * result.nfe


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("whole_run", [False, True])
@pytest.mark.parametrize("solver", [*OF_CLD, "sscs unmerged"])
def test_a_graph_makes_the_same_samples(solver, whole_run, memory_format, monkeypatch):
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))
    solver, _, unmerged = solver.partition(" ")
    options = {"merged": False} if unmerged else {}
    network = ScoreNetwork(
        elementwise, CLD(), (3, 5, 7), prediction="mixed_velocity", memory_format=memory_format
    )
    if solver == "sscs_exact":  # forward-mode derivatives cannot be taped
        network = linearized(
            network.with_module(lambda u, t: elementwise(u, t).repeat(1, 2, 1, 1)), 1, True
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
    network = ScoreNetwork(elementwise, CLD(), (3, 5, 7), prediction="mixed_velocity")
    samplers = [Sampler(network, "sscs", 4, merged=False), Sampler(network, "cld_em", 6)]
    made, finite = together(executor("eager"), network, jobs_of(samplers, [0, 1, 0]))
    assert all(finite)
    for i, p in enumerate([0, 1, 0]):
        assert torch.equal(made[i], samplers[p].sample(seeds=[i]).samples[0])


@pytest.mark.parametrize("process", [CLD(), VARYING], ids=["constant", "varying"])
@pytest.mark.parametrize("solver, options", STOCHASTIC, ids=str)
def test_more_steps_on_a_path_come_to_the_same_sample(solver, options, process):
    """Mean distance of runs of n and 2n steps; and the law stays that of the mixture."""

    def distances(how):
        network = suited(solver, cld_mixture(process=process, shape=(64,)))
        counts = (10, 20, 40) if solver == "sscs_exact" else (20, 40, 80)  # of second order
        made = [
            Sampler(network, solver, n, **options).sample(32, noise=how).samples for n in counts
        ]
        assert float(made[-1].std()) == pytest.approx(0.6262, abs=0.03)
        return [float((a - b).abs().mean()) for a, b in itertools.pairwise(made)]

    (coarse, fine), (_, fresh) = distances("brownian"), distances(None)
    assert fine < 0.75 * coarse and fine < 0.2 * fresh


def test_noise_on_a_path_is_that_of_one_motion():
    """L21 and L22 of a short flow go as -sqrt(3) to 1: v takes one mixture of both paths, whatever the step.
    Rows follow one another on the paths."""
    for solver, options in STOCHASTIC:
        made = cases.plan(solver, 400, **options)
        noisy = [row for row in made.rows[1:] if row.draws(0)]
        assert all(row.spans for row in noisy)
        assert all(a.spans[0][2] == b.spans[0][1] for a, b in itertools.pairwise(noisy))
        new = noisy[200].new[1]
        if solver == "cld_em":
            assert noisy[200].spans[1:] == (None,)
        else:
            assert new["z0"] / new["z1"] == pytest.approx(-np.sqrt(3.0), rel=0.03)


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
    other = linearized(base.with_module(with_slope), 2, elementwise=True)(u, t, None)[0]
    assert one.shape == (4, 15)
    assert torch.allclose(one, other, atol=1e-14)
    x, v = u.chunk(2, dim=1)
    slope = torch.cos(v) * x
    wanted = [output(u, t), slope * v, slope * output(u, t), slope**2 * v]
    assert torch.allclose(one[:, :12], torch.cat(wanted, dim=1), atol=1e-14)


def test_previews_are_the_implied_x0():
    """On a point mass every preview is the mass, and so is the end."""
    network = cld_gaussian(0.3, 0.0, shape=(1, 4, 4))
    seen = []
    made = Sampler(network, "cld_exp", 20, dtype=torch.float64, backend="torch").sample(
        2, on_step=lambda progress: seen.append(progress.denoised.clone())
    )
    assert len(seen) == 19
    assert all(torch.allclose(d, torch.full_like(d, 0.3), atol=1e-9) for d in seen)
    assert (made.samples - 0.3).abs().max() < 0.01


def test_accelerate_tries_two_slots():
    """The example call of accelerate=True has x and v in it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(6, 8, 3, padding=1), nn.GroupNorm(2, 8)
            self.out = nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, u, t):
            return self.out(nn.functional.silu(self.norm(self.conv(u)))) + t.view(-1, 1, 1, 1)

    network = ScoreNetwork(Net().eval(), CLD(), (3, 8, 8), prediction="mixed_velocity")
    plain = Sampler(network, "sscs", 4).sample(2).samples
    assert torch.allclose(
        Sampler(network, "sscs", 4, accelerate=True).sample(2).samples, plain, atol=1e-4
    )


def test_recipes_replay():
    network = ScoreNetwork(elementwise, CLD(), (3, 5, 7), prediction="mixed_velocity")
    made = Sampler(network, "sscs", 5).sample(3, seed=4)
    assert torch.equal(Sampler.replay(network, made.recipe).samples, made.samples)
    plan = Sampler(network, "sscs", 5, merged=False).plan()
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("solver", [name for name in OF_CLD if name != "sscs_exact"])
def test_guidance_mixes_scores(solver):
    def module(u, label, y):
        return elementwise(u, label) + 0.1 * y.view(-1, 1, 1, 1)

    network = ScoreNetwork(
        module, CLD(), (3, 5, 7), prediction="mixed_velocity", null=10, classes=10
    )
    mixed = network.with_module(
        lambda u, t, y: 3.0 * module(u, t, y) - 2.0 * module(u, t, y * 0 + 10)
    )
    guided = Sampler(network, solver, 5, guidance=3.0).sample(2, condition=[1, 2]).samples
    wanted = Sampler(mixed, solver, 5).sample(2, condition=[1, 2]).samples
    assert torch.allclose(guided, wanted, atol=1e-5)
    with pytest.raises(ValueError, match="2 branches of 9 channel blocks are 18 outputs and a row"):
        Sampler(linearized(network, 4), "sscs_exact", 5, guidance=3.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("solver", OF_CLD)
def test_a_bad_output_is_flagged(solver, bad):
    """One sample's, in one call; the others are what they are without it."""
    calls = []

    def module(u, t):
        calls.append(len(u))
        out = elementwise(u, t)
        if len(calls) == 2 and spoilt:
            out[1, 0, 0, 0] = bad
        return out.repeat(1, 2, 1, 1) if solver == "sscs_exact" else out

    network = ScoreNetwork(module, CLD(), (3, 5, 7), prediction="mixed_velocity")
    if solver == "sscs_exact":
        network = linearized(network, 1, elementwise=True)
    spoilt = False
    whole = Sampler(network, solver, 5).sample(3)
    spoilt = calls.clear() or True
    with pytest.warns(RuntimeWarning, match=r"seeds \[1\] met a value"):
        made = Sampler(network, solver, 5).sample(3)
    assert (whole.finite, made.finite) == ([True] * 3, [True, False, True])
    assert torch.equal(made.samples[[0, 2]], whole.samples[[0, 2]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_networks_of_half_precision(dtype, memory_format):
    """Their input is rounded, x and v are not."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(6, 3, 1)

        def forward(self, u, t):
            assert u.dtype == dtype and t.dtype == torch.float32
            assert u.is_contiguous(memory_format=memory_format)
            return 0.2 * self.conv(u)

    torch.manual_seed(0)
    module = Net().to(dtype)
    network = ScoreNetwork(
        module, CLD(), (3, 32, 32), prediction="mixed_velocity", memory_format=memory_format
    )
    made = Sampler(network, "sscs", 5).sample(2).samples
    exact = nn.Conv2d(6, 3, 1)
    exact.load_state_dict(module.conv.state_dict())
    network = network.with_module(lambda u, t: 0.2 * exact(u))
    wanted = Sampler(network, "sscs", 5).sample(2).samples
    assert made.dtype == torch.float32
    assert 0.0 < float((made - wanted).abs().max()) < 0.05
