"""Consistency models and LCM: exact functions, published grids, diffusers' own loop, guidance as an input."""

import json
import math

import pytest
import torch
from optional import diffusers, needs
from tape import TapeRecorder, taped

from diffusion_engine import Sampler, ScoreNetwork, from_diffusers
from diffusion_engine.executors import Graph, stages
from diffusion_engine.networks.condition import ScaleEmbedding
from diffusion_engine.networks.prediction import Consistency
from diffusion_engine.processes import EDM, VP, Discrete, grids
from diffusion_engine.testing import ConsistencyFunction

FUNCTION = ConsistencyFunction()
TABLE = Discrete.scaled_linear()


def within_3_sigma(samples, mean, variance):
    n = samples.numel()
    assert abs(float(samples.mean()) - mean) < 3.0 * math.sqrt(variance / n)
    assert abs(float(samples.var()) - variance) < 3.0 * variance * math.sqrt(2.0 / n)


@pytest.mark.parametrize("dtype, backend", [(torch.float64, "torch"), (torch.float32, "cpp")])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_moments_of_the_exact_function(steps, dtype, backend):
    net = FUNCTION.network((50,))
    made = Sampler(net, "consistency", steps, dtype=dtype, backend=backend, batch_size=4000)
    samples = made.sample(4000, seed=5).samples
    mean, variance, end = 0.0, 6400.0, 0.25 + 0.002**2
    for row in made.plan().rows[1:]:
        square = row.call.at.sigma**2
        shrink = math.sqrt(end / (0.25 + square))
        mean, variance = (
            0.3 + (mean - 0.3) * shrink,
            shrink**2 * (square if variance == 6400 else 0.25 + square),
        )
    within_3_sigma(samples, mean, variance)
    if steps == 1:
        assert mean == 0.3 * (1.0 - shrink) and variance == end * 6400.0 / 6400.25
    else:
        assert variance == pytest.approx(end)


def test_steps_are_those_of_the_paper():
    """x0 = f(x, t); x <- x0 + sqrt(t'^2 - smin^2) z, the last without."""
    noise = torch.randn(3, 1, 6, 5, dtype=torch.float64)
    net = FUNCTION.network((5,))
    sampler = Sampler(net, "consistency", 2, indices=[0, 22, 39], dtype=torch.float64)
    levels = [row.call.at.sigma for row in sampler.plan().rows[1:]]
    assert levels == pytest.approx([80.0, 1.38236796], rel=1e-8)
    x = 80.0 * noise[0, 0]
    made = sampler.sample(6, noise=noise).samples
    x0 = FUNCTION(x, torch.tensor(80.0, dtype=torch.float64))
    x = x0 + math.sqrt(levels[1] ** 2 - 0.002**2) * noise[1, 0]
    want = FUNCTION(x, torch.tensor(levels[1], dtype=torch.float64))
    assert torch.allclose(made, want, rtol=0, atol=1e-6)  # the given normals are read as float32
    recipe = json.loads(json.dumps(sampler.sample(3).recipe))
    assert torch.equal(Sampler.replay(net, recipe).samples, sampler.sample(3).samples)
    by_levels = Sampler(net, "consistency", sigmas=[80.0, levels[1], 0.002], dtype=torch.float64)
    assert torch.allclose(by_levels.sample(6, noise=noise).samples, made, rtol=0, atol=1e-12)


def test_levels_that_end_above_the_least_noise():
    """The last x is f itself, whatever level the user's levels end at."""
    net, levels = FUNCTION.network((5,)), [80.0, 4.0, 1.0]
    sampler = Sampler(net, "consistency", sigmas=levels, dtype=torch.float64)
    noise = torch.randn(3, 1, 6, 5, dtype=torch.float64).float().double()
    made = sampler.sample(6, noise=noise).samples
    x = 80.0 * noise[0, 0]
    for z, at, after in zip(noise[1:, 0], levels, levels[1:], strict=False):
        kept = math.sqrt(after**2 - 0.002**2) if after != levels[-1] else 0.0
        x = FUNCTION(x, torch.tensor(at, dtype=torch.float64)) + kept * z
    assert torch.allclose(made, x, rtol=0, atol=1e-9)
    assert not any(sampler.plan().rows[-1].draws(m) for m in range(2))


def test_published_levels():
    process = EDM()
    levels = [p.ratio for p in grids.karras_at(process, 2, (0, 17, 39))]
    assert levels == pytest.approx([80.0, 4.36556169], rel=1e-8)
    assert len(grids.karras_at(process, 2, (0, 106, 200), 201)) == 2


def test_boundary_and_label():
    rule, process = Consistency(), EDM()
    assert rule(process.at(0.002)) == (1.0, 0.0)
    assert rule.c_noise(process.at(80.0)) == pytest.approx(250.0 * math.log(80.0))
    assert rule.c_in(process.at(0.002)) == pytest.approx(1.0 / math.sqrt(0.002**2 + 0.25))


def test_clip_holds_f():
    net = FUNCTION.network((50,), clip=(-0.2, 0.2))
    assert Sampler(net, "consistency", 2).sample(50).samples.abs().max() <= 0.2


def denoiser(x, t, w=None):
    out = 0.5 * x + 0.2 * torch.sin(2.0 * x + t.to(x.dtype).view(-1, 1, 1, 1) / 300.0)
    return out if w is None else out + 0.1 * w.mean(dim=1).view(-1, 1, 1, 1)


@pytest.mark.parametrize("n", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_lcm_equals_diffusers(n, kind, monkeypatch):
    scheduler = diffusers.LCMScheduler(prediction_type=kind)
    shape = (4, 3, 3)
    network = ScoreNetwork(
        denoiser,
        TABLE,
        shape,
        prediction={"epsilon": "eps", "v_prediction": "v"}[kind],
        grid="leading",
    )
    noise, x = torch.randn(n + 1, 1, 2, *shape), torch.randn(2, *shape)
    sampler = Sampler(network, "lcm", n)
    made = sampler.sample(x=x, noised=True, noise=noise).samples
    queue = [noise[i, 0] for i in range(1, n)]
    monkeypatch.setattr(
        needs("diffusers.schedulers.scheduling_lcm"), "randn_tensor", lambda *a, **k: queue.pop(0)
    )
    scheduler.set_timesteps(n)
    assert [row.call.at.t for row in sampler.plan().rows[1:]] == scheduler.timesteps.tolist()
    for t in scheduler.timesteps:
        x = scheduler.step(denoiser(x, t.expand(2)), t, x, return_dict=False)[0]
    assert not queue
    assert (made - x).abs().max() < 2e-5 * x.abs().max()


@pytest.mark.parametrize("original", [20, 50, 100])
def test_lcm_timesteps_are_those_of_diffusers(original):
    scheduler = diffusers.LCMScheduler()
    for n in range(1, original + 1):
        scheduler.set_timesteps(n, original_inference_steps=original)
        assert grids.distilled(TABLE, n, original).tolist() == scheduler.timesteps.tolist()


def test_lcm_timesteps():
    assert grids.distilled(TABLE, 4).tolist() == [999.0, 759.0, 499.0, 259.0]
    assert grids.distilled(TABLE, 50)[-1] == 19.0


def test_scale_embedding_is_that_of_diffusers_pipelines():
    scales = torch.tensor([1.0, 4.0, 8.5], dtype=torch.float64)
    embedding = needs("diffusers.models.embeddings").get_timestep_embedding
    want = embedding(1000.0 * (scales - 1.0), 256, False, 1.0)  # in float32
    made = ScaleEmbedding()(scales)["timestep_cond"]
    assert torch.allclose(made.float(), want, rtol=0, atol=2e-3)


def student(**options):
    def module(x, t, y=None, *, timestep_cond):
        out = denoiser(x, t, timestep_cond)
        return out if y is None else out + 0.01 * y.to(x.dtype).view(-1, 1, 1, 1)

    return ScoreNetwork(module, TABLE, (4, 3, 3), scale_input=ScaleEmbedding(8), **options)


def test_a_student_is_told_its_scale_and_makes_no_second_branch():
    sampler = Sampler(student(classes=10), "lcm", 4, guidance=3.0)
    made = sampler.sample(3, condition=[1, 2, 3])
    assert made.evaluations == 3 * 4 and sampler.plan().evaluations == 4
    assert made.recipe["guidance"] == [3.0] * 3 and made.recipe["condition"] == [1, 2, 3]
    mixed = sampler.sample(3, condition=[1, 2, 3], guidance=[3.0, 7.0, 3.0])
    assert torch.equal(mixed.samples[0], made.samples[0])
    assert not torch.equal(mixed.samples[1], made.samples[1])
    again = Sampler.replay(student(classes=10), mixed.recipe)
    assert torch.equal(again.samples, mixed.samples)
    # Without a condition of its own the scale is all it is told.
    assert Sampler(student(), "lcm", 2, guidance=5.0).sample(2).evaluations == 4


def test_a_student_in_graphs_and_accelerated(monkeypatch):
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))
    plain = Sampler(student(classes=10), "lcm", 4, guidance=3.0)
    captured = Sampler(
        student(classes=10), "lcm", 4, guidance=3.0, executor=Graph(recorder=TapeRecorder())
    )
    want = plain.sample(3, condition=[1, 2, 3], guidance=[2.0, 3.0, 4.0]).samples
    for _ in range(2):
        made = captured.sample(3, condition=[1, 2, 3], guidance=[2.0, 3.0, 4.0]).samples
        assert torch.equal(made, want)

    class Told(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = torch.nn.GroupNorm(2, 4), torch.nn.Linear(8, 4)

        def forward(self, x, t, y=None, *, timestep_cond):
            told = self.linear(timestep_cond)[:, :, None, None]
            return self.norm(x) + told + 0.01 * y.view(-1, 1, 1, 1)

    network = ScoreNetwork(
        Told().eval(), TABLE, (4, 8, 8), scale_input=ScaleEmbedding(8), classes=10
    )
    made = [
        Sampler(network, "lcm", 2, guidance=3.0, accelerate=on).sample(2, condition=[1, 2]).samples
        for on in (False, True)
    ]
    assert torch.allclose(*made, rtol=1e-4, atol=1e-4)


def test_a_student_of_diffusers():
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(32,), layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=16, attention_head_dim=4, time_cond_proj_dim=16,
    ).eval()  # fmt: skip
    network = from_diffusers(unet, diffusers.LCMScheduler())
    text, x = torch.randn(2, 7, 16), torch.randn(2, 4, 8, 8)
    made = Sampler(network, "lcm", 1, guidance=8.5).sample(x=x, noised=True, condition=text).samples
    w = ScaleEmbedding(16)(torch.full((2,), 8.5))["timestep_cond"].float()
    with torch.no_grad():
        eps = unet(x, torch.tensor(999), text, timestep_cond=w).sample
    at = network.process.at(999.0)
    want = (x - at.sigma * eps) / at.alpha
    assert (made - want).abs().max() < 1e-4 * want.abs().max()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Sampler(FUNCTION.network(), "consistency", 3, indices=(0, 22, 39)), "give steps=2"),
        (lambda: Sampler(FUNCTION.network(), "consistency", 2, indices=(0, 22)), "rise to scales - 1 = 39"),
        (lambda: Sampler(FUNCTION.network(), "consistency", 2, indices=(5, 2, 39)), "indices="),
        (lambda: Sampler(FUNCTION.network(), "consistency", 2, indices=(0, 22.5, 39)), "indices="),
        (lambda: Sampler(FUNCTION.network(), "consistency", 2, indices="abc"), "indices="),
        (lambda: Sampler(FUNCTION.network(), "consistency", 2, indices=5), "indices="),
        (
            lambda: Sampler(ScoreNetwork(denoiser, EDM(t_min=0.01), (1,), Consistency()), "consistency", 2),
            "is x at sigma / alpha = 0.002 and the process's times end at 0.01",
        ),
        (
            lambda: Sampler(ScoreNetwork(denoiser, TABLE, (1,)), "lcm", original=2.5),
            "original=2.5: give an integer",
        ),
        (lambda: Sampler(ScoreNetwork(denoiser, VP(), (1,)), "scm", 2, intermediate=2.0), "intermediate=2"),
        (lambda: Sampler(ScoreNetwork(denoiser, TABLE, (1,)), "lcm", 60), "60 steps were asked of 50"),
        (lambda: Sampler(ScoreNetwork(denoiser, TABLE, (1,)), "lcm", scaling=-1.0), "both are above 0"),
        (lambda: Sampler(student(), "lcm", 4, interval=(0.1, 1.0)), "reads its guidance scale"),
        (lambda: ScaleEmbedding(3), "dim=3"),
        (
            lambda: Sampler(
                ScoreNetwork(denoiser, TABLE, (1, 2, 2), scale_input=lambda w: {"w": w[:1]}), "lcm", 2
            ).sample(3),
            "scale_input made w \\[1\\] of 3 scales",
        ),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
