"""diffusers' networks and schedulers through `ScoreNetwork.from_diffusers`, against diffusers' own loop."""

import pytest
import torch

from diffusion_engine import Sampler, ScoreNetwork
from diffusion_engine.processes import FlowMatching

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

torch.manual_seed(0)
UNET = diffusers.UNet2DModel(
    sample_size=8,
    block_out_channels=(32, 32),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
).eval()
CLASSES = diffusers.UNet2DModel(
    sample_size=8,
    block_out_channels=(32,),
    layers_per_block=1,
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
    num_class_embeds=5,
).eval()
TEXT = diffusers.UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(32,),
    layers_per_block=1,
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    cross_attention_dim=16,
    attention_head_dim=4,
).eval()
DIT = diffusers.DiTTransformer2DModel(
    num_attention_heads=2,
    attention_head_dim=8,
    out_channels=8,
    num_layers=2,
    sample_size=8,
    num_embeds_ada_norm=10,
).eval()
with torch.no_grad():
    for p in DIT.parameters():  # it starts at zero
        p.add_(0.05 * torch.randn_like(p))


def loop(scheduler, module, x, steps, scale=1.0, conditions=({},), channels=None, **options):
    """Sampling as diffusers' pipelines do it."""
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for t in scheduler.timesteps:
            outs = [module(x, t.expand(len(x)), **c, return_dict=False)[0] for c in conditions]
            out = outs[0] if len(outs) == 1 else outs[1] + scale * (outs[0] - outs[1])
            x = scheduler.step(out[:, :channels], t, x, return_dict=False, **options)[0]
    return x


def close(got, want):
    return float((got - want).abs().max() / want.abs().max()) < 2e-5


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"clip_sample": False},
        {"clip_sample": False, "prediction_type": "v_prediction", "timestep_spacing": "trailing",
         "rescale_betas_zero_snr": True},
        {"clip_sample_range": 2.0, "prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1,
         "clip_sample": False},
        {"trained_betas": [0.001 * i for i in range(1, 101)], "num_train_timesteps": 100},
    ],
)  # fmt: skip
def test_ddim_equals_diffusers(config):
    scheduler = diffusers.DDIMScheduler(**config)
    network = ScoreNetwork.from_diffusers(UNET, scheduler)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    made = Sampler(network, "ddim", 5).sample(x=x, noised=True)
    # diffusers' DDIM with a clipped estimate otherwise goes on with the eps of the unclipped one.
    corrected = {"use_clipped_model_output": True} if network.clip else {}
    assert close(made.samples, loop(scheduler, UNET, x, 5, **corrected))


def test_flow_matching_equals_diffusers():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    network = ScoreNetwork.from_diffusers(UNET, scheduler.config)
    assert isinstance(network.process, FlowMatching)
    x = torch.randn(2, 3, 8, 8)
    scheduler.set_timesteps(6)
    sigmas = scheduler.sigmas.tolist()
    made = Sampler(network, "euler", times=sigmas).sample(x=x, noised=True)
    assert close(made.samples, loop(scheduler, UNET, x, 6))
    own = Sampler(network, "euler", 6).points
    assert own[0].t == 1.0 and own[-1].sigma == 0.0
    assert own[3].t > 0.5  # shifted towards noise


def test_classes_and_text():
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    x = torch.randn(2, 3, 8, 8)
    network = ScoreNetwork.from_diffusers(CLASSES, scheduler)
    assert network.classes == 5
    made = Sampler(network, "ddim", 3).sample(x=x, noised=True, condition=[1, 4])
    labels = {"class_labels": torch.tensor([1, 4])}
    assert close(made.samples, loop(scheduler, CLASSES, x, 3, conditions=(labels,)))

    x, text, none = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 16), torch.randn(7, 16)
    branches = ({"encoder_hidden_states": text}, {"encoder_hidden_states": none.expand(2, 7, 16)})
    want = loop(scheduler, TEXT, x, 3, 4.0, branches)
    named = ScoreNetwork.from_diffusers(TEXT, scheduler, null={"encoder_hidden_states": none})
    made = Sampler(named, "ddim", 3, guidance=4.0)
    made = made.sample(x=x, noised=True, condition={"encoder_hidden_states": text})
    assert close(made.samples, want)
    plain = ScoreNetwork.from_diffusers(TEXT, scheduler, null=none)
    made = Sampler(plain, "ddim", 3, guidance=4.0).sample(x=x, noised=True, condition=text)
    assert close(made.samples, want)


def test_dit_with_its_learned_variance():
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    network = ScoreNetwork.from_diffusers(DIT, scheduler)
    assert network.shape == (4, 8, 8) and network.null == network.classes == 10
    x = torch.randn(2, 4, 8, 8)
    made = Sampler(network, "ddim", 3, guidance=2.0).sample(x=x, noised=True, condition=[3, 7])
    branches = ({"class_labels": torch.tensor([3, 7])}, {"class_labels": torch.tensor([10, 10])})
    assert close(made.samples, loop(scheduler, DIT, x, 3, 2.0, branches, channels=4))


def test_sdxl_conditions_are_added():
    seen = {}

    class Net(torch.nn.Module):
        config = UNET.config

        def forward(self, x, t, encoder_hidden_states, added_cond_kwargs, return_dict):
            seen.update(added_cond_kwargs)
            return (x * encoder_hidden_states.mean(dim=(1, 2)).view(-1, 1, 1, 1),)

    network = ScoreNetwork.from_diffusers(Net(), diffusers.DDIMScheduler())
    condition = {
        "encoder_hidden_states": torch.ones(2, 3, 4),
        "text_embeds": torch.randn(2, 5),
        "time_ids": torch.randn(2, 6),
    }
    Sampler(network, "ddim", 2).sample(condition=condition)
    assert seen["text_embeds"].shape == (2, 5) and set(seen) == {"text_embeds", "time_ids"}


def test_noise_levels_of_a_scheduler():
    karras = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True)
    network = ScoreNetwork.from_diffusers(UNET, karras)
    karras.set_timesteps(8)
    points = Sampler(network, "ddim", 8).points
    got = [p.ratio for p in points[:-1]]
    # diffusers rounds the ends' timesteps; both run from the table's largest to its smallest ratio.
    assert got == pytest.approx(karras.sigmas[:-1].tolist(), rel=1e-3)
    with pytest.raises(ValueError, match="asks for thresholding=True"):
        ScoreNetwork.from_diffusers(UNET, diffusers.DDIMScheduler(thresholding=True))
    with pytest.raises(ValueError, match="asks for use_dynamic_shifting=True"):
        config = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True).config
        ScoreNetwork.from_diffusers(UNET, config)


def test_weights_have_the_names_of_the_users_module():
    made = Sampler(ScoreNetwork.from_diffusers(UNET, diffusers.DDIMScheduler()), "ddim", 2)
    made.update_weights(UNET.state_dict())


def test_what_is_not_understood():
    with pytest.raises(ValueError, match="give a network of diffusers"):
        ScoreNetwork.from_diffusers(torch.nn.Conv2d(3, 3, 1), diffusers.DDIMScheduler())
    with pytest.raises(ValueError, match="a scheduler, or its config"):
        ScoreNetwork.from_diffusers(UNET, "ddim")
    with pytest.raises(ValueError, match="neither beta_schedule nor shift"):
        ScoreNetwork.from_diffusers(UNET, {"_class_name": "KarrasVeScheduler"})
    with pytest.raises(ValueError, match="beta_schedule='odd'"):
        ScoreNetwork.from_diffusers(
            UNET, diffusers.DDIMScheduler().config | {"beta_schedule": "odd"}
        )
    inpaint = diffusers.UNet2DModel(
        **(dict(CLASSES.config) | {"in_channels": 9, "out_channels": 4})
    )
    with pytest.raises(ValueError, match="takes 9 channels and returns 4"):
        ScoreNetwork.from_diffusers(inpaint, diffusers.DDIMScheduler())
