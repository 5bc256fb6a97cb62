"""Networks of diffusers: what of them is replaced, and calls that the original runs."""

import accelerate_cases as cases
import pytest
import torch
from accelerate_cases import close

from diffusion_engine import Sampler, from_diffusers
from diffusion_engine.accelerate import accelerate, accelerated
from diffusion_engine.accelerate.diffusers import FusedResnetBlock


def unet(diffusers, **options):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
              "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}  # fmt: skip
    return diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        **(blocks | options),
    ).eval()  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [{}, {"resnet_time_scale_shift": "scale_shift", "attention_head_dim": 16},
     {"downsample_type": "resnet", "upsample_type": "resnet"}],
    ids=["default", "scale_shift", "resampling"],
)  # fmt: skip
def test_diffusers_unet(diffusers, options):
    made = unet(diffusers, **options)
    x, t = torch.randn(3, 3, 8, 8), torch.tensor(7)
    with torch.no_grad():
        want = made(x, t).sample
        done = accelerate(made, x, t)
        close(made(x, t).sample, want)
    kinds = [one.kind for one in done.replacements]
    fused = {"resnet block", "attention", "winograd conv2d", "packed conv2d", "group_norm + SiLU"}
    assert fused == set(kinds)
    assert kinds.count("resnet block") >= 7 and not done.refused


def test_diffusers_with_another_activation(diffusers):
    done = accelerate(unet(diffusers, act_fn="mish"), torch.randn(1, 3, 8, 8), torch.tensor(7))
    kind, reason = done.refused["mid_block.resnets.0"]
    assert kind == "resnet block" and reason == "its activation is Mish, not SiLU"


def test_diffusers_cross_attention(diffusers):
    torch.manual_seed(0)
    made = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4,
        cross_attention_dim=24, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
    given = torch.randn(2, 4, 8, 8), torch.tensor(7), torch.randn(2, 5, 24)
    with torch.no_grad():
        want = made(*given).sample
        done = accelerate(made, *given)
        close(made(*given).sample, want)
    assert [one.kind for one in done.replacements].count("attention") == 8


def test_decoder_of_an_autoencoder(diffusers):
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(32, 288), layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).eval()  # fmt: skip
    x = torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        want = vae.decoder(x)
        done = accelerate(vae.decoder, x)
        close(vae.decoder(x), want)
    assert done.refused["mid_block.attentions.0"] == (
        "attention", "its heads have 288 elements, not 8 to 256",
    )  # fmt: skip
    assert [one.kind for one in done.replacements].count("resnet block") == 2
    assert "mid_block.attentions.0" not in done.errors


@pytest.mark.parametrize("tokens", [(0, 5), (5, 0)], ids=str)
@torch.no_grad()
def test_no_text_tokens(diffusers, tokens):
    made, x = cases.text_unet(diffusers), torch.randn(2, 4, 8, 8)
    texts = [torch.randn(2, n, 24) for n in tokens]
    want = [made(x, torch.tensor(7), text).sample for text in texts]
    done = accelerate(made, x, torch.tensor(7), texts[0])
    for text, expected in zip(texts, want, strict=True):
        close(made(x, torch.tensor(7), text).sample, expected)
    assert [one.kind for one in done.replacements].count("attention") == 8


@torch.no_grad()
def test_another_processor_later(diffusers):
    made = cases.text_unet(diffusers)
    given = torch.randn(2, 4, 8, 8), torch.tensor(7), torch.randn(2, 5, 24)
    accelerate(made, *given)

    class Halved(diffusers.models.attention_processor.AttnProcessor):
        def __call__(self, *args, **kwargs):
            return 0.5 * super().__call__(*args, **kwargs)

    made.set_attn_processor(Halved())
    got = made(*given).sample
    accelerated(made).restore()
    close(got, made(*given).sample)


@torch.no_grad()
def test_time_embeddings_of_other_shapes(diffusers):
    from diffusers.models.resnet import ResnetBlock2D

    torch.manual_seed(0)
    block = ResnetBlock2D(in_channels=16, out_channels=32, temb_channels=8, groups=4).eval()
    x, temb = torch.randn(3, 16, 6, 5), torch.randn(3, 8)
    accelerate(block, x, temb)
    plain = type(block).forward.__get__(block)
    for given in ((x, temb[:1]), (x[:0], temb[:0]), (x[:1, :, :1, :1], temb[:1])):
        got = block(*given)
        accelerated(block).restore()
        close(got, plain(*given))
        accelerate(block, x, temb)


@torch.no_grad()
def test_a_time_embedding_without_a_time_layer(diffusers):
    """The original's sum, of whatever shape it is, or the original's error."""
    from diffusers.models.resnet import ResnetBlock2D

    torch.manual_seed(0)
    block = ResnetBlock2D(in_channels=16, temb_channels=None, groups=4).eval()
    x, resnet = torch.randn(2, 16, 6, 2), FusedResnetBlock("", block)
    for temb in (
        torch.randn(6, 2),
        torch.randn(2, 2),
        torch.randn(2, 16),
        torch.randn(2, 16, 1, 1),
    ):
        try:
            want = resnet.original(x, temb)
        except RuntimeError as error:
            with pytest.raises(RuntimeError) as told:
                resnet.forward(x, temb)
            assert str(told.value) == str(error) and temb.shape != (6, 2)
        else:
            close(resnet.forward(x, temb), want)


@torch.no_grad()
def test_a_missing_time_embedding(diffusers):
    """The original's error where the block has a time layer."""
    from diffusers.models.resnet import ResnetBlock2D

    resnet = FusedResnetBlock("", ResnetBlock2D(in_channels=16, temb_channels=8, groups=4).eval())
    for run in (resnet.original, resnet.forward):
        with pytest.raises(TypeError, match="must be Tensor, not NoneType"):
            run(torch.randn(2, 16, 6, 2), None)


@torch.no_grad()
def test_a_time_embedding_of_another_dtype(diffusers):
    """The original's error: its sum is of a dtype that its second norm does not take."""
    from diffusers.models.resnet import ResnetBlock2D

    block = ResnetBlock2D(in_channels=16, temb_channels=8, groups=4).eval()
    replacement = FusedResnetBlock("", block.bfloat16())
    x, temb = torch.randn(3, 16, 6, 5).bfloat16(), torch.randn(3, 8)
    close(replacement.forward(x, temb.bfloat16()), replacement.original(x, temb.bfloat16()))
    block.time_emb_proj.float()
    with pytest.raises(RuntimeError) as wanted:
        replacement.original(x, temb)
    with pytest.raises(RuntimeError) as told:
        replacement.forward(x, temb)
    assert str(told.value) == str(wanted.value)


# Sampler


def test_a_network_of_text_without_null(diffusers):
    network = from_diffusers(
        cases.text_unet(diffusers), diffusers.DDIMScheduler(timestep_spacing="linspace")
    )
    with pytest.raises(ValueError, match=r"needs one \(text\), give null="):
        Sampler(network, "ddim", steps=2, accelerate=True)


def test_a_network_of_text(diffusers):
    scheduler, text = diffusers.DDIMScheduler(timestep_spacing="linspace"), torch.randn(5, 24)
    null = {"encoder_hidden_states": torch.zeros(5, 24)}
    made = from_diffusers(cases.text_unet(diffusers), scheduler, null=null, clip=None)
    how = {"condition": {"encoder_hidden_states": text.expand(2, -1, -1)}, "guidance": 2.0}
    fast, plain = (
        Sampler(made, "ddim", steps=2, accelerate=a).sample(2, **how) for a in (True, False)
    )
    close(fast.samples, plain.samples)
