"""diffusers' networks and schedulers through `from_diffusers`, against diffusers' own loop."""

import copy

import pytest
import torch

from diffusion_engine import Sampler, from_diffusers
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
    network = from_diffusers(UNET, scheduler)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    made = Sampler(network, "ddim", 5).sample(x=x, noised=True)
    # diffusers' DDIM with a clipped estimate otherwise goes on with the eps of the unclipped one.
    corrected = {"use_clipped_model_output": True} if network.parameterisation.clip else {}
    assert close(made.samples, loop(scheduler, UNET, x, 5, **corrected))


def test_flow_matching_equals_diffusers():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    network = from_diffusers(UNET, scheduler)
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
    network = from_diffusers(CLASSES, scheduler)
    assert network.classes == 5
    made = Sampler(network, "ddim", 3).sample(x=x, noised=True, condition=[1, 4])
    labels = {"class_labels": torch.tensor([1, 4])}
    assert close(made.samples, loop(scheduler, CLASSES, x, 3, conditions=(labels,)))

    x, text, none = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 16), torch.randn(7, 16)
    branches = ({"encoder_hidden_states": text}, {"encoder_hidden_states": none.expand(2, 7, 16)})
    want = loop(scheduler, TEXT, x, 3, 4.0, branches)
    named = from_diffusers(TEXT, scheduler, null={"encoder_hidden_states": none})
    made = Sampler(named, "ddim", 3, guidance=4.0)
    made = made.sample(x=x, noised=True, condition={"encoder_hidden_states": text})
    assert close(made.samples, want)
    plain = from_diffusers(TEXT, scheduler, null=none)
    made = Sampler(plain, "ddim", 3, guidance=4.0).sample(x=x, noised=True, condition=text)
    assert close(made.samples, want)


def test_dit_with_its_learned_variance():
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    network = from_diffusers(DIT, scheduler)
    assert network.shape == (4, 8, 8) and network.null == network.classes == 10
    x = torch.randn(2, 4, 8, 8)
    made = Sampler(network, "ddim", 3, guidance=2.0).sample(x=x, noised=True, condition=[3, 7])
    branches = ({"class_labels": torch.tensor([3, 7])}, {"class_labels": torch.tensor([10, 10])})
    assert close(made.samples, loop(scheduler, DIT, x, 3, 2.0, branches, channels=4))


SMALL = {
    "sample_size": 8,
    "block_out_channels": (32,),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 8,  # one a channel would undo what is added to all pixels
}
# What a network reads besides the text: its own fields, and conditions of two samples by name.
NAMED = {
    "masks": ({}, {"encoder_attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]),
                   "attention_mask": (torch.arange(64) % 3 > 0).float().expand(2, 64)}),
    "classes": ({"num_class_embeds": 5}, {"class_labels": torch.tensor([1, 4])}),
    "a scale": ({"time_cond_proj_dim": 6}, {"timestep_cond": torch.randn(2, 6)}),
    "sdxl": ({"addition_embed_type": "text_time", "addition_time_embed_dim": 4,
              "projection_class_embeddings_input_dim": 12 + 6 * 4},
             {"text_embeds": torch.randn(2, 12), "time_ids": torch.rand(2, 6)}),
    "an image": ({"addition_embed_type": "image", "encoder_hid_dim": 16},
                 {"image_embeds": torch.randn(2, 16)}),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_named_conditions(name, scale):
    """Each changes the output as in a direct call, with guidance against a null of the same names too."""
    config, extra = NAMED[name]
    torch.manual_seed(2)
    net = diffusers.UNet2DConditionModel(**SMALL, **config).eval()
    x, given = torch.randn(2, 4, 8, 8), {"encoder_hidden_states": torch.randn(2, 5, 16), **extra}
    null = {k: torch.ones_like(t[0]) for k, t in given.items()}
    scheduler = diffusers.DDIMScheduler(clip_sample=False)
    network = from_diffusers(net, scheduler, null=null, scale_input=None)
    sampler = Sampler(network, "ddim", 2, guidance=scale)
    others = [given | {k: 1 - t if k == "attention_mask" else t.flip(0)} for k, t in extra.items()]
    ours = [sampler.sample(x=x, noised=True, condition=c).samples for c in (given, *others)]

    def keywords(named):
        own = {
            k: t for k, t in named.items() if k not in ("text_embeds", "time_ids", "image_embeds")
        }
        added = {k: t for k, t in named.items() if k not in own}
        return own | ({"added_cond_kwargs": added} if added else {})

    branches = [keywords(given), keywords({k: t.expand(2, *t.shape) for k, t in null.items()})]
    want = loop(scheduler, net, x, 2, scale, branches if scale != 1.0 else branches[:1])
    assert close(ours[0], want)
    assert not any(close(other, want) for other in ours[1:])  # every name has its effect


@pytest.mark.parametrize(
    "net, names",
    [
        (TEXT, ["text_embeds", "time_ids", "image_embeds", "class_labels", "timestep_cond", "negative",
                "cross_attention_kwargs", "mid_block_additional_residual"]),
        (UNET, ["encoder_hidden_states", "class_labels", "timestep_cond"]),
        (CLASSES, ["encoder_attention_mask"]),
    ],
)  # fmt: skip
def test_a_condition_that_is_not_read_is_refused(net, names):
    network = from_diffusers(net, diffusers.DDIMScheduler())
    text = {"encoder_hidden_states": torch.zeros(1, 3, 16)} if net is TEXT else {}
    for name in names:
        with pytest.raises(ValueError, match=f"the condition has {name!r}"):
            Sampler(network, "ddim", 2).sample(1, condition={**text, name: torch.zeros(1, 4)})
    with pytest.raises(ValueError, match="the condition has 'txt'"):
        from_diffusers(net, diffusers.DDIMScheduler(), null={"txt": torch.zeros(3, 16)})


def test_weights_have_the_names_of_the_users_module():
    own, scheduler = copy.deepcopy(UNET), diffusers.DDIMScheduler()
    made = Sampler(from_diffusers(own, scheduler), "ddim", 2)
    before = made.sample(2).samples
    made.update_weights({name: 0.9 * tensor for name, tensor in UNET.state_dict().items()})
    assert torch.equal(own.conv_in.weight, 0.9 * UNET.conv_in.weight)
    got = made.sample(2).samples
    assert torch.equal(got, Sampler(from_diffusers(own, scheduler), "ddim", 2).sample(2).samples)
    assert not torch.equal(got, before)


def test_what_is_not_understood():
    with pytest.raises(ValueError, match="give a network of diffusers"):
        from_diffusers(torch.nn.Conv2d(3, 3, 1), diffusers.DDIMScheduler())
    with pytest.raises(ValueError, match="a scheduler, or its config"):
        from_diffusers(UNET, "ddim")
    with pytest.raises(ValueError, match="of the class KarrasVeScheduler is not understood"):
        from_diffusers(UNET, {"_class_name": "KarrasVeScheduler"})
    with pytest.raises(ValueError, match="without a _class_name is not understood"):
        from_diffusers(UNET, diffusers.DDIMScheduler().config)
    with pytest.raises(ValueError, match="beta_schedule='odd'"):
        from_diffusers(UNET, {"_class_name": "DDIMScheduler", "beta_schedule": "odd"})
    inpaint = diffusers.UNet2DModel(
        **(dict(CLASSES.config) | {"in_channels": 9, "out_channels": 4})
    )
    with pytest.raises(ValueError, match="takes 9 channels and returns 4"):
        from_diffusers(inpaint, diffusers.DDIMScheduler())
