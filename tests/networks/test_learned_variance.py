"""DDPM with the network's variance, and DDIM with the network's own eps, against loops and diffusers."""

import math

import numpy as np
import pytest
import torch
from optional import diffusers, needs

from diffusion_engine import Sampler, ScoreNetwork, from_diffusers
from diffusion_engine.processes import VP, Discrete

SHAPE = (2, 3, 3)
PROCESS = Discrete.linear()


def outputs(x, label, y=None):
    """[prediction | variance], smooth in both arguments."""
    t = label.to(x.dtype).view(-1, 1, 1, 1) / 1000.0
    shift = 0.0 if y is None else y.to(x.dtype).view(-1, 1, 1, 1)
    return torch.cat(
        [0.6 * x + 0.1 * torch.sin(3.0 * x + shift), torch.sin(x + 5.0 * t + shift)], 1
    )


def loop(kind, timesteps, x, noise, conditions=(None,), scale=1.0):
    """Nichol & Dhariwal's sampler over respaced timesteps, in float64."""
    table = np.asarray(PROCESS.alpha_bar)
    for i, t in enumerate(timesteps):
        last = i + 1 == len(timesteps)
        now, then = table[t], 1.0 if last else table[timesteps[i + 1]]
        outs = [
            outputs(x, torch.full((len(x),), float(t), dtype=torch.float64), y) for y in conditions
        ]
        eps, nu = outs[0].chunk(2, 1)
        if len(outs) == 2:
            other = outs[1].chunk(2, 1)[0]
            eps = other + scale * (eps - other)
        beta = 1.0 - now / then
        x0 = (x - math.sqrt(1.0 - now) * eps) / math.sqrt(now)
        mean = (
            math.sqrt(then) * beta / (1 - now) * x0
            + math.sqrt(now / then) * (1 - then) / (1 - now) * x
        )
        if last:
            return mean
        f = (nu + 1.0) / 2.0
        small = beta * (1.0 - then) / (1.0 - now)
        log = nu if kind == "learned" else f * math.log(beta) + (1.0 - f) * math.log(small)
        x = mean + torch.exp(0.5 * log) * noise[i + 1, 0]
    return x


@pytest.mark.parametrize("label", [torch.float32, torch.int64])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("kind", ["learned", "learned_range"])
def test_equals_a_loop(kind, guided, label):
    rng = torch.Generator().manual_seed(0)
    x, noise = torch.randn(4, *SHAPE, generator=rng), torch.randn(8, 1, 4, *SHAPE, generator=rng)
    timesteps = [999, 700, 400, 150, 60, 20, 0]
    network = ScoreNetwork(outputs, PROCESS, SHAPE, variance=kind, null=0.5, label_dtype=label)
    y = torch.tensor([0.1, 1.0, 2.0, 3.0])
    condition = {"condition": y, "guidance": 3.0} if guided else {"condition": y}
    branches = (y.double(), torch.full((4,), 0.5, dtype=torch.float64)) if guided else (y.double(),)
    want = loop(kind, timesteps, x.double(), noise.double(), branches, 3.0)
    for dtype, backend, tolerance in (
        (torch.float64, "torch", 1e-12),
        (torch.float32, "cpp", 1e-5),
    ):
        sampler = Sampler(
            network,
            "ddpm",
            times=[*timesteps, -1],
            variance=kind,
            dtype=dtype,
            backend=backend,
            clip=None,
        )
        made = sampler.sample(x=x, noised=True, noise=noise, **condition).samples
        assert (made.double() - want).abs().max() < tolerance * want.abs().max()


@pytest.mark.parametrize("kind", ["learned_range", "fixed_small", "fixed_large"])
def test_equals_diffusers(kind, monkeypatch):
    # Leading timesteps end at 0: diffusers adds noise to the last step of others.
    config = {"variance_type": kind, "timestep_spacing": "leading", "clip_sample": True}
    scheduler = diffusers.DDPMScheduler(**config)
    noise = torch.randn(9, 1, 2, *SHAPE)
    network = ScoreNetwork(outputs, PROCESS, SHAPE, variance="learned_range", clip=(-1.0, 1.0))
    x = torch.randn(2, *SHAPE)
    made = (
        Sampler(network, "ddpm", 8, grid="leading", variance=kind)
        .sample(x=x, noised=True, noise=noise)
        .samples
    )
    queue = [noise[i, 0] for i in range(1, 9)]
    monkeypatch.setattr(
        needs("diffusers.schedulers.scheduling_ddpm"), "randn_tensor", lambda *a, **k: queue.pop(0)
    )
    scheduler.set_timesteps(8)
    for t in scheduler.timesteps:
        out = outputs(x, t.expand(2))
        out = out if kind == "learned_range" else out[:, :2]
        x = scheduler.step(out, t, x, return_dict=False)[0]
    assert (made - x).abs().max() < 2e-5 * x.abs().max()


@pytest.mark.parametrize("prediction, kind", [("eps", "epsilon"), ("v", "v_prediction")])
@pytest.mark.parametrize("own", [True, False])
def test_ddim_goes_on_with_either_eps(own, prediction, kind):
    """With a clipped estimate diffusers' DDIM keeps the network's eps unless told otherwise."""
    scheduler = diffusers.DDIMScheduler(prediction_type=kind, timestep_spacing="trailing")
    network = ScoreNetwork(
        lambda x, t: outputs(x, t)[:, :2], PROCESS, SHAPE, prediction=prediction, clip=(-1.0, 1.0)
    )
    x = torch.randn(2, *SHAPE)
    made = Sampler(network, "ddim", 5, clipped_eps=not own).sample(x=x, noised=True).samples
    scheduler.set_timesteps(5)
    for t in scheduler.timesteps:
        out = outputs(x, t.expand(2))[:, :2]
        x = scheduler.step(out, t, x, use_clipped_model_output=not own, return_dict=False)[0]
    assert (made - x).abs().max() < 2e-5 * x.abs().max()


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "score"])
def test_without_a_clip_both_eps_are_one(prediction):
    network = ScoreNetwork(
        lambda x, t, y: outputs(x, t, y)[:, :2], VP(), SHAPE, prediction=prediction, null=0.5
    )
    made = [
        Sampler(network, "ddim", 5, eta=0.5, clipped_eps=own, dtype=torch.float64, guidance=2.0)
        .sample(condition=torch.tensor([0.3, 2.0]))
        .samples
        for own in (True, False)
    ]
    assert torch.allclose(*made, rtol=1e-9, atol=1e-9)


def test_a_network_says_what_its_variance_is():
    plain = ScoreNetwork(outputs, PROCESS, SHAPE)
    with pytest.raises(
        ValueError, match="variance='learned' is read from the network, which has none"
    ):
        Sampler(plain, "ddpm", 4, variance="learned")
    ranged = ScoreNetwork(outputs, PROCESS, SHAPE, variance="learned_range")
    with pytest.raises(ValueError, match="which has a 'learned_range' one"):
        Sampler(ranged, "ddpm", 4, variance="learned")
    with pytest.raises(ValueError, match="variance='small': choose"):
        ScoreNetwork(outputs, PROCESS, SHAPE, variance="small")
    short = ScoreNetwork(lambda x, t: x, PROCESS, SHAPE, variance="learned_range")
    with pytest.raises(
        ValueError, match="returned 2 channels; with variance='learned_range' it returns 4"
    ):
        Sampler(short, "ddpm", 4, variance="learned_range").sample()


def test_diffusers_networks_say_it_too():
    dit = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1,
        sample_size=8, num_embeds_ada_norm=10,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    network = from_diffusers(dit, scheduler)
    assert network.parameterisation.variance == "learned_range"
    made = Sampler(network, "ddpm", 3, variance="learned_range", guidance=2.0).sample(
        condition=[1, 2]
    )
    assert torch.isfinite(made.samples).all()
    learned = diffusers.DDPMScheduler(variance_type="learned")
    assert from_diffusers(dit, learned).parameterisation.variance == "learned"
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(32,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    assert from_diffusers(unet, learned).parameterisation.variance is None


def test_the_networks_own_eps_at_zero_terminal_snr():
    network = ScoreNetwork(
        lambda x, t: outputs(x, t)[:, :2], PROCESS.zero_terminal_snr(), SHAPE, prediction="v"
    )
    made = [
        Sampler(network, "ddim", 5, clipped_eps=own, dtype=torch.float64).sample(2).samples
        for own in (True, False)
    ]
    assert torch.allclose(*made, rtol=1e-9, atol=1e-9)
