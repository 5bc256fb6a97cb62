"""The user's object: seeds, batches, backends, dtypes, predictions, recipes, threads, plans."""

import copy
import json
import pickle
import threading
from dataclasses import replace

import pytest
import torch
from analytic import network, suited
from oracles.problems import TM
from sampler_cases import SHAPE, classes, elementwise, sampler
from torch import nn

from diffusion_engine import Plan, Sampler, ScoreNetwork
from diffusion_engine.plan.linear import denoised, x
from diffusion_engine.processes import EDM, VE, VP, Discrete, FlowMatching, SubVP
from diffusion_engine.solvers import Solver, Update
from diffusion_engine.solvers.base import steps


@pytest.mark.parametrize("backend", ["cpp", "torch", "triton"])
@pytest.mark.parametrize("solver", ["dpmpp_2m_sde", "unipc", "euler_ancestral"])
def test_sample_of_a_batch_equals_sample_alone(backend, solver):
    batch = 6 if backend == "triton" else 64  # the interpreter is slow
    made = sampler(solver, 4, backend=backend).sample(batch, seed=100)
    for i in (0, 3, batch - 1):
        alone = sampler(solver, 4, backend=backend).sample(seeds=[100 + i])
        assert torch.equal(made.samples[i], alone.samples[0])


@pytest.mark.parametrize("solver", suited(VP()))
def test_backends_agree(solver):
    reference = sampler(solver, 3, backend="torch").sample(3).samples
    assert torch.isfinite(reference).all()
    assert torch.equal(sampler(solver, 3, backend="cpp").sample(3).samples, reference)


def test_chunks_are_the_same_samples():
    whole = sampler("ddpm").sample(7, seed=3)
    parts = list(sampler("ddpm").chunks(7, seed=3, batch_size=3))
    assert [len(part.samples) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.samples for part in parts]), whole.samples)
    joined = sampler("ddpm", batch_size=2).sample(7, seed=3)
    assert torch.equal(joined.samples, whole.samples)
    assert joined.seeds == whole.seeds == list(range(3, 10))
    assert joined.recipe == whole.recipe
    assert joined.evaluations == whole.evaluations == 7 * whole.nfe


def test_seeds_name_samples():
    a = sampler("ddpm").sample(seeds=[5, 2**63 + 1, 9])
    b = sampler("ddpm").sample(seeds=[9, 5])
    assert torch.equal(a.samples[0], b.samples[1])
    assert torch.equal(a.samples[2], b.samples[0])
    assert not torch.equal(a.samples[1], a.samples[0])


def test_channels_last_has_the_same_noise():
    plain = sampler("ddpm").sample(2).samples
    net = ScoreNetwork(elementwise, VP(), SHAPE, memory_format=torch.channels_last)
    last = Sampler(net, "ddpm", 5).sample(2).samples
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)


@pytest.mark.parametrize("options", [{}, {"solver": "ddpm"}, {"solver": "ddim", "eta": 0.3}])
def test_recipe_makes_the_samples_again(options):
    net = ScoreNetwork(classes, VP(), SHAPE, null=10, classes=10)
    made = Sampler(net, **options, steps=4, guidance=2.0, clip=(-3, 3)).sample(
        3, condition=[1, 2, 3]
    )
    recipe = json.loads(json.dumps(made.recipe))
    assert torch.equal(Sampler.replay(net, recipe).samples, made.samples)


def test_recipe_asks_for_what_json_cannot_hold():
    image = torch.randn(2, *SHAPE)
    made = sampler().sample(x=image, start=0.5)
    net = ScoreNetwork(elementwise, VP(), SHAPE)
    with pytest.raises(ValueError, match="made with x"):
        Sampler.replay(net, made.recipe)
    assert torch.equal(Sampler.replay(net, made.recipe, x=image).samples, made.samples)


def test_two_threads_share_a_sampler():
    shared = sampler("dpmpp_2m_sde", 6)
    expected = [shared.sample(4, seed=s).samples for s in range(4)]
    made = [None] * 4

    def work(i):
        made[i] = shared.sample(4, seed=i).samples

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_network_dtype(dtype):
    seen = []

    def module(x, label):
        seen.append(x.dtype)
        return elementwise(x, label.to(x.dtype))

    made = Sampler(ScoreNetwork(module, VP(), SHAPE), steps=3, dtype=dtype).sample(2).samples
    assert set(seen) == {dtype}
    full = Sampler(ScoreNetwork(module, VP(), SHAPE), steps=3).sample(2).samples
    assert made.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(made.float(), full, rtol=0.05, atol=0.05 * full.abs().max())


def test_a_module_of_another_dtype_is_copied():
    module = nn.Conv2d(3, 3, 1)
    net = ScoreNetwork(lambda x, label: module(x), VP(), SHAPE)
    assert Sampler(net, steps=2).sample().samples.shape == (1, *SHAPE)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x, label):
            return self.conv(x)

    own = Net()
    made = Sampler(ScoreNetwork(own, VP(), SHAPE), steps=2, dtype=torch.bfloat16)
    made.sample()
    assert own.conv.weight.dtype == torch.float32
    assert made.network.module.conv.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "prediction, process",
    [
        ("eps", VP()), ("x0", VP()), ("v", VP()), ("score", VP()), ("flow", FlowMatching()),
        ("v", SubVP()), ("score", VE(sigma_max=50.0)), ("F", EDM()), ("eps", Discrete.linear()),
    ],
)  # fmt: skip
def test_predictions_agree_on_one_distribution(prediction, process):
    """The same exact denoiser in every parameterisation gives the same samples."""
    exact = network(TM, process)

    def module(x, label):
        t = float(label[0])
        at = process.at(t)
        scale = ScoreNetwork(module, process, (1,), prediction=prediction).parameterisation.c_in(at)
        state = x / scale
        x0 = exact.module(state, label)
        (p,), q = ScoreNetwork(
            module, process, (1,), prediction=prediction
        ).parameterisation.weights(at)
        return (x0 - p * state) / q

    net = ScoreNetwork(module, process, (1,), prediction=prediction, label_dtype=torch.float64)
    kind = {"dtype": torch.float64, "grid": "uniform"}
    if isinstance(process, Discrete):
        kind["grid"] = "trailing"
    ours = Sampler(net, "ddim", 5, **kind).sample(5).samples
    expected = Sampler(exact, "ddim", 5, **kind).sample(5).samples
    assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_denoiser_in_ve_coordinates():
    """D(x / alpha, sigma / alpha), as k-diffusion wraps a network, on a VP process."""
    exact = network(TM, VP())

    def denoiser(x_bar, ratio):
        alpha = 1.0 / torch.sqrt(1.0 + ratio**2)
        t = torch.from_numpy(VP().t_of_lam(-torch.log(ratio).numpy()))
        return exact.module(x_bar * alpha.view(-1, 1), t)

    options = {"label_dtype": torch.float64, "process": VP()}
    net = ScoreNetwork.from_denoiser(denoiser, (1,), **options)
    ours = Sampler(net, "dpmpp_2m", 6, dtype=torch.float64).sample(5).samples
    expected = Sampler(exact, "dpmpp_2m", 6, dtype=torch.float64).sample(5).samples
    assert torch.allclose(ours, expected, rtol=1e-9, atol=1e-9)


def test_integer_labels_are_rounded_not_cut():
    seen = []

    def module(x, label):
        seen.append(label.tolist())
        return x * 0.5

    process = Discrete.linear()
    net = ScoreNetwork(module, process, (1,), label_dtype=torch.int64)
    Sampler(net, "dpm_solver_2", times=[900, 500, 100, -1]).sample()
    middle = float(process.t_of_lam(0.5 * (process.lam(900.0) + process.lam(500.0))))
    assert seen[1] == [round(middle)]
    assert isinstance(seen[1][0], int)


def test_a_users_own_solver():
    class Mine(Solver):
        name = "mine"

        def updates(self, process, points):
            for s, t in steps(points):
                scale = t.sigma / s.sigma
                yield Update(s, {0: scale * x + (t.alpha - scale * s.alpha) * denoised}, t)

    own = sampler(Mine()).sample(2).samples
    assert torch.equal(own, sampler("ddim").sample(2).samples)


def test_nan_from_the_network_flags_its_sample_alone():
    wrong = [1]

    def module(x, label):
        out = elementwise(x, label)
        out[wrong, 0, 0, 0] = float("nan")
        return out

    once = Sampler(ScoreNetwork(module, VP(), SHAPE), "ddpm", 4)
    with pytest.warns(RuntimeWarning, match=r"seeds \[1\]"):
        made = once.sample(3)
    assert made.finite == [True, False, True]
    clean = sampler("ddpm", 4).sample(3)
    for i in (0, 2):
        assert torch.equal(made.samples[i], clean.samples[i])
    wrong.clear()  # nothing of it is left for the next run
    after = once.sample(3)
    assert after.finite == [True] * 3 and torch.equal(after.samples, clean.samples)


def test_clip_bounds_denoised():
    made = Sampler(ScoreNetwork(elementwise, VP(), SHAPE, clip=(-0.5, 0.5)), steps=4).sample(2)
    assert made.samples.abs().max() <= 0.5
    free = Sampler(ScoreNetwork(elementwise, VP(), SHAPE, clip=(-0.5, 0.5)), steps=4, clip=None)
    assert free.sample(2).samples.abs().max() > 0.5


def test_progress_bar_is_silent_off_a_terminal(capfd):
    sampler().sample(2)
    assert capfd.readouterr().err == ""
    sampler("ddim", 7).sample(2, progress=True)
    said = capfd.readouterr().err
    assert "0/7 [" in said and "row" in said  # as many as there are calls


def test_plan_prints_and_round_trips():
    plan = sampler("unipc", 6).plan()
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert str(plan).count("\n") >= len(plan.rows)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p)), lambda p: Plan.from_json(p.to_json())],
)
def test_copies_of_a_plan(copied):
    """Of one that keeps x0 to its order alone, too, and of the intervals of its noise."""
    for plan in (sampler("ddpm", 3).plan(), sampler("dpmpp_sde", 3).plan()):
        first, *rows, last = plan.rows
        for exact in (True, False):
            bent = last if exact else replace(last, new={k: 2.0 * u for k, u in last.new.items()})
            made = replace(plan, rows=(first, *rows, bent), exact=exact)
            again = copied(made)
            assert (again, again.exact, again.name) == (made, exact, plan.name)
