"""Denoising diffusion GANs: the chain's numbers, the law of its end, and the networks' latent input."""

import json
import math

import numpy as np
import pytest
import torch
from batches import jobs_of, together
from oracles import ddgan as oracle
from tape import TapeRecorder, taped

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.executors import Graph, stages
from diffusion_engine.ops import philox as noise
from diffusion_engine.processes import VP, Discrete
from diffusion_engine.testing import GaussianGenerator

MU, S2, LATENT = 0.3, 0.25, 60
SHAPE = (3, 4, 5)

GOLDEN = {
    4: {
        "beta": (0.478255, 0.849206, 0.956418, 0.987404),
        "alpha_cum": (0.521745, 0.0786760, 0.00342888, 4.31905e-5),
        "c1": (1.0, 0.665778, 0.269191, 0.0578215),
        "c2": (0.0, 0.201576, 0.193001, 0.111852),
        "std": (0.0, 0.663942, 0.940320, 0.991998),
    },
    2: {"c1": (1.0, 0.280350), "c2": (0.0, 0.0215876), "std": (0.0, 0.959613)},
}


def generator(n, latent=LATENT, shape=SHAPE, module=None, **options):
    process = Discrete.few(n)
    options = {"prediction": "x0", "label_dtype": torch.int64, "latent": latent} | options
    return ScoreNetwork(module or GaussianGenerator(process, MU, S2), process, shape, **options)


def sampler(n, network=None, **options):
    return Sampler(network or generator(n), "ddgan", n, **options)


def digits(value):
    """Half a unit of the last of six printed digits."""
    return pytest.approx(value, rel=5.1e-6, abs=1e-12)


@pytest.mark.parametrize("n", [2, 4])
def test_numbers_of_the_chain(n):
    plan = sampler(n).plan()
    rows = plan.rows[:0:-1]  # the last step, i = 0, first
    bar = torch.tensor(generator(n).process.alpha_bar, dtype=torch.float64)
    made = {
        "beta": [1 - a / b for a, b in zip(bar, [1.0, *bar], strict=False)],
        "alpha_cum": bar,
        "c1": [row.new[0]["D"] for row in rows],
        "c2": [row.new[0]["S0"] for row in rows],
        "std": [row.new[0]["z0"] for row in rows],
    }
    for name, want in GOLDEN[n].items():
        assert [float(v) for v in made[name]] == [digits(v) for v in want], name
    assert [row.call.label for row in rows] == list(range(n))
    for name, want in zip(("beta", "alpha_cum", "c1", "c2", "std"), oracle.chain(n), strict=True):
        assert [float(v) for v in made[name]] == pytest.approx(list(want), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("n", [2, 4])
def test_equals_the_loop(n):
    network = generator(
        n, module=lambda x, t, z: torch.tanh(x + 0.1 * t.double().view(-1, 1, 1, 1))
    )
    own = sampler(n, network, dtype=torch.float64, backend="torch")
    x, *draws = torch.randn(n + 1, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    made = own.sample(x=x, noised=True, noise=lambda row, m, seeds: draws[row - 1][None]).samples
    theirs = oracle.ddgan(
        lambda x, s: np.tanh(x + 0.1 * s.t), [(p.t, p.alpha, p.sigma, p.lam) for p in own.points],
        x.numpy(), lambda step, stage: draws[step].numpy(),
    )  # fmt: skip
    assert made[0].numpy() == pytest.approx(theirs, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("n", [1, 2, 4, 7])
def test_the_exact_posterior_ends_at_the_data(n):
    mean, variance = oracle.end_moments(n, MU, S2)
    assert mean == pytest.approx(MU, abs=4e-6) and variance == pytest.approx(S2, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 16])
def test_a_plan_of_any_length_ends_at_the_data(n):
    """Mean and variance row by row: x' = c1 (offset + gain x + std z) + c2 x + noise."""
    module = GaussianGenerator(Discrete.few(n), MU, S2)
    mean, variance = 0.0, 1.0
    for i, row in zip(reversed(range(n)), sampler(n).plan().rows[1:], strict=True):
        new, gain = row.new[0], float(module.gain[i])
        weight = new["S0"] + new["D"] * gain
        mean = weight * mean + new["D"] * float(module.offset[i])
        fresh = (new["D"] * float(module.std[i])) ** 2 + new["z0"] ** 2
        variance = weight**2 * variance + fresh
    assert mean == pytest.approx(MU, abs=4e-6) and variance == pytest.approx(S2, abs=1e-9)


def test_one_step_is_the_generator():
    made = sampler(1).sample(3)
    z = noise.normals(torch.arange(3), torch.ones(3, dtype=torch.int64), noise.LATENT, LATENT)
    x = noise.normals(torch.arange(3), torch.zeros(3, dtype=torch.int64), 0, 60).reshape(3, *SHAPE)
    want = GaussianGenerator(Discrete.few(1), MU, S2)(x, torch.zeros(3, dtype=torch.int64), z)
    assert torch.allclose(made.samples, want, rtol=0, atol=1e-6)


def test_labels_of_any_type():
    one, two = (sampler(4, generator(4, label_dtype=d)).sample(2).samples
                for d in (torch.int64, torch.float32))  # fmt: skip
    assert torch.equal(one, two)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("backend, dtype", [("cpp", None), ("torch", torch.float64)])
def test_moments_of_samples(n, backend, dtype):
    """Within three standard deviations, over 120 000 elements; each independent of the others."""
    own = sampler(n, backend=backend, dtype=dtype, batch_size=2000)
    made = own.sample(2000, progress=False).samples.double()
    count = made.numel()
    assert abs(made.mean() - MU) < 3 * math.sqrt(S2 / count)
    assert abs(made.var() - S2) < 3 * S2 * math.sqrt(2 / count)
    centred = (made - MU) / math.sqrt(S2)
    assert abs((centred**4).mean() - 3) < 3 * math.sqrt(96 / count)
    flat = centred.flatten(1)
    between = flat.T @ flat / len(flat) - torch.eye(flat.shape[1], dtype=torch.float64)
    assert between.abs().max() < 5.5 * math.sqrt(2 / len(flat))


def seen_by(network, steps, **how):
    """The z of each call, [calls, entries, size]."""
    seen = []
    module = network.module

    def watched(x, label, z, *rest):
        seen.append(z.clone())
        return module(x, label, z, *rest)

    object.__setattr__(network, "module", watched)
    Sampler(network, "ddgan", steps).sample(progress=False, **how)
    return seen


def test_z_is_philox_of_seed_and_row():
    seeds = [3, 2**63 + 5]
    seen = seen_by(generator(4), 4, seeds=seeds)
    assert len(seen) == 4
    signed = torch.tensor([3, 5 - 2**63])
    for row, z in enumerate(seen, 1):
        assert torch.equal(z, noise.normals(signed, torch.tensor([row, row]), noise.LATENT, LATENT))


def test_branches_of_a_sample_share_their_z():
    """Called as module(x, label, z, condition)."""

    def module(x, label, z, y):
        return 0.1 * x + z[:, :60].reshape(x.shape) + y.view(-1, 1, 1, 1)

    network = generator(4, module=module, null=10, classes=10)
    seen = seen_by(network, 4, condition=[1, 2, 3], guidance=[1.0, 2.0, 3.0])
    for z in seen:
        assert z.shape == (5, LATENT)  # three conditional entries, then two without
        assert torch.equal(z[3:], z[1:3])


def test_a_mapping_goes_by_name():
    def module(x, label, z, *, scale):
        return z[:, :60].reshape(x.shape) * scale.view(-1, 1, 1, 1)

    network = generator(2, module=module)
    made = sampler(2, network).sample(2, condition={"scale": torch.tensor([0.0, 1.0])}).samples
    assert not made[0].any() and made[1].any()


@pytest.mark.parametrize("n", [2, 4])
def test_a_sample_equals_itself_alone_and_replayed(n):
    own = sampler(n)
    made = own.sample(7, batch_size=3)
    assert torch.equal(made.samples[5], own.sample(seeds=[5]).samples[0])
    assert torch.equal(made.samples, sampler(n, backend="torch").sample(7).samples)
    again = Sampler.replay(own.network, json.loads(json.dumps(made.recipe)))
    assert torch.equal(again.samples, made.samples)


@pytest.mark.parametrize("whole_run", [False, True])
def test_a_graph_makes_the_same_samples(monkeypatch, whole_run):
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))
    captured = sampler(4, executor=Graph(recorder=TapeRecorder(), whole_run=whole_run))
    for seed in (0, 50):
        want, got = (s.sample(5, seed=seed).samples for s in (sampler(4), captured))
        assert torch.equal(want, got)


def test_in_half_precision_z_is_rounded():
    plain = seen_by(generator(2), 2, n=2)
    network = generator(2)
    object.__setattr__(network, "module", network.module.bfloat16())
    seen = []

    def watched(x, label, z):
        seen.append((x.dtype, z))
        return x

    object.__setattr__(network, "module", watched)
    Sampler(network, "ddgan", 2, dtype=torch.bfloat16).sample(2)
    assert all(dtype == z.dtype == torch.bfloat16 for dtype, z in seen)
    assert torch.equal(seen[-1][1], plain[-1].bfloat16())


def test_solvers_share_a_batch():
    """A generator's samples and those of another solver of the same network, at rows of their own."""
    network = generator(4)
    samplers = [
        Sampler(network, "ddgan", 4),
        Sampler(network, "ddim", 2),
        Sampler(network, "heun", 3),
    ]
    plan_of = [0, 1, 2, 0, 1]
    made, _ = together(samplers[0].executor, network, jobs_of(samplers, plan_of))
    for i, p in enumerate(plan_of):
        assert torch.equal(made[i], samplers[p].sample(seeds=[i]).samples[0])


def test_objections():
    with pytest.raises(ValueError, match=r"give ScoreNetwork latent=100.*got latent=0, 'x0'"):
        sampler(4, generator(4, latent=0))
    with pytest.raises(ValueError, match="one short chain: give Discrete"):
        Sampler(ScoreNetwork(lambda x, t, z: x, VP(), (1,), "x0", latent=8), "ddgan", 4)
    with pytest.raises(ValueError, match="knows the 4 steps of its chain: sample with steps=4"):
        Sampler(generator(4), "ddgan", 2)
    for wrong in (0, -1, 2.5, "4", True):
        with pytest.raises(ValueError, match="a chain has a whole number of steps"):
            Discrete.few(wrong)
    with pytest.raises(
        ValueError, match=r"10 entries and a sample 60 elements.* give ScoreNetwork latent=60"
    ):
        sampler(4, generator(4, latent=10)).sample(2)
    with pytest.raises((ValueError, TypeError), match="order"):
        sampler(4, order=3)
    with pytest.raises(ValueError, match="latent=-1: the size of z"):
        generator(4, latent=-1)
