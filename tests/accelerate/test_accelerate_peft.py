"""Adapters of peft on networks of diffusers, put on, weighted and taken off after accelerate()."""

import accelerate_cases as cases
import pytest
import torch
from accelerate_cases import close

from diffusion_engine import Sampler, from_diffusers
from diffusion_engine.accelerate import accelerate

peft = pytest.importorskip("peft", reason="peft is not installed")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
choose_fused = cases.choose_fused


@pytest.fixture
def unet():
    return cases.text_unet(diffusers)


def adapted(unet, name):
    targets = ["to_q", "to_v", "conv1", "conv2"]
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    unet.add_adapter(config, adapter_name=name)


def fused_in(unet):
    """The adapter's weights in those of the network, written through `.data`."""
    unet.fuse_lora()


STEPS = [
    lambda unet: adapted(unet, "a"),
    lambda unet: adapted(unet, "b"),
    lambda unet: unet.set_adapters(["a", "b"], [0.5, 2.0]),
    lambda unet: unet.set_adapters(["a"], [0.25]),
    lambda unet: unet.disable_adapters(),
    lambda unet: unet.enable_adapters(),
    fused_in,
    lambda unet: unet.unfuse_lora(),
]


def test_a_sampler_follows_adapters(unet):
    text = {"encoder_hidden_states": torch.randn(2, 5, 24)}
    null = {"encoder_hidden_states": torch.zeros(5, 24)}
    scheduler = diffusers.DDIMScheduler(timestep_spacing="linspace")
    own = from_diffusers(unet, scheduler, null=null, clip=None)

    def samples(sampler):
        return sampler.sample(2, condition=text).samples

    fast = Sampler(own, "ddim", steps=2, accelerate=True)
    before = samples(fast)
    for step in STEPS:
        step(unet)
        unet.eval()
        want = samples(Sampler(own, "ddim", steps=2))
        close(samples(fast), want)
        assert not torch.equal(want, before)
        before = want


@torch.no_grad()
def test_in_place_says_what_to_do(unet):
    given = torch.randn(2, 4, 8, 8), torch.tensor(7), torch.randn(2, 5, 24)
    done = accelerate(unet, *given)
    adapted(unet, "a")
    unet.eval()
    with pytest.raises(
        RuntimeError, match=r"Lora\w+|lora\.\w+|a Linear was put at .*accelerate\(\) again"
    ):
        unet(*given)
    done.restore()
    want = unet(*given).sample
    accelerate(unet, *given)
    close(unet(*given).sample, want)
    unet.set_adapters(["a"], [0.25])
    got = unet(*given).sample
    accelerate_again = cases.network.accelerated(unet)
    accelerate_again.restore()
    close(got, unet(*given).sample)
