"""Modules that cannot be replaced are left alone, and calls that one cannot take run the original."""

import copy

import accelerate_cases as cases
import pytest
import torch
from accelerate_cases import close
from torch import nn

from diffusion_engine import Sampler, from_diffusers
from diffusion_engine.accelerate import accelerate, accelerated
from diffusion_engine.accelerate.attention import FusedMultiheadAttention
from diffusion_engine.accelerate.compare import compared, difference
from diffusion_engine.accelerate.conv3x3 import FusedConv3x3, fused_conv
from diffusion_engine.accelerate.diffusers import FusedResnetBlock
from diffusion_engine.accelerate.group_norm import FusedGroupNorm
from diffusion_engine.accelerate.replacement import Replacement

choose_fused, net, example = cases.choose_fused, cases.net, cases.example


@pytest.fixture
def diffusers():
    return pytest.importorskip("diffusers", reason="diffusers is not installed")


@pytest.mark.parametrize("weakened", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_weights_that_a_hook_makes(net, example, weakened):
    weakened(net.block.conv1)
    weakened(net.stem)
    with torch.no_grad():
        done = accelerate(net, *example)
        for name in ("stem", "block.conv1"):
            assert "a hook makes its weight anew" in done.refused[name][1]
        for p in net.parameters():
            p.data.mul_(1.1)
        done.refresh()
        got = net(*example)
        done.restore()
        close(got, net(*example))


@pytest.mark.parametrize("error", [ValueError, RuntimeError, TypeError, ZeroDivisionError])
def test_a_replacement_that_fails_is_left_out(net, example, monkeypatch, error):
    forward = FusedConv3x3.forward

    def fails(self, x):
        if self.name == "block.conv1":
            raise error("not this one")
        return forward(self, x)

    monkeypatch.setattr(FusedConv3x3, "forward", fails)
    done = accelerate(net, *example)
    reason = done.refused["block.conv1"][1]
    assert reason == f"its fused form fails on the example: {error.__name__}: not this one"
    assert {"stem", "block.norm1", "block.conv2"} <= done.errors.keys()


def test_a_format_that_fails_is_left_out(example):
    """Whether a network can be called in channels_last is not its fused forms' fault."""

    class Viewing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x):
            return self.conv(x).view(len(x), -1)

    net = Viewing().eval()
    done = accelerate(net, example[0])
    assert done.chosen == "fused" and list(done.dropped) == ["fused, channels_last"]
    assert "view size is not compatible" in str(done)


def test_a_replacement_that_works_in_place():
    """What goes on is the original's result, made once."""

    class Doubled(nn.Module):
        def forward(self, x):
            return x.mul_(2.0)

    class Doubling(Replacement):
        def forward(self, x):
            return x.mul_(2.0)

    module = Doubled()
    replacement = Doubling("", module)
    with compared([replacement]) as found:
        assert torch.equal(module(torch.ones(3)), torch.full((3,), 2.0))
    assert found.objection(replacement) is None


def test_the_worst_call_of_a_replacement_decides():
    class Wrong(Replacement):
        """A quarter too much, at its first call."""

        def forward(self, x):
            x, self.sign = self.sign * x, 1.0
            return x

    module, x = nn.Identity(), torch.ones(3)
    replacement = Wrong("", module)
    for sign, objection in ((1.25, "differs from the original by 2.5e-01"), (1.0, None)):
        replacement.sign = sign
        with compared([replacement]) as found:
            for _ in range(2):
                module(x)
        reason = found.objection(replacement)
        assert reason is None if objection is None else objection in reason


def test_nan_is_a_difference():
    x = torch.tensor([1.0, 2.0])
    nan, inf = torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("inf")])
    assert difference(nan, x)[0] == difference(x, nan)[0] == difference(x, inf)[0] == float("inf")
    assert difference(nan, nan)[0] == difference(inf, inf)[0] == 0.0


def test_heads_that_are_too_large():
    replacement = FusedMultiheadAttention("attention", nn.MultiheadAttention(300, 1).eval())
    assert replacement.objection() == "its heads have 300 elements, not 8 to 256"


@pytest.mark.parametrize("own", [{}, {"kdim": 16, "vdim": 12}], ids=["alike", "of their own"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_queries_keys_and_values(batch_first, bias, own):
    """Each another tensor or the same, with weights in one or in three."""
    torch.manual_seed(0)
    options = {"batch_first": batch_first, "bias": bias, **own}
    replacement = FusedMultiheadAttention("", nn.MultiheadAttention(16, 2, **options).eval())
    if bias:
        replacement.module.in_proj_bias.normal_()
    q, k, v = (torch.randn(3, 5, width) for width in (16, 16, own.get("vdim", 16)))
    for given in ((q, k, v), (q, q, v)) if own else ((q, k, v), (q, q, v), (q, k, k), (q, q, q)):
        want = replacement.original(*given, need_weights=False)
        close(replacement.forward(*given, need_weights=False), want)


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


ODD = {
    "empty": torch.zeros(0, 8, 6, 5),
    "one pixel": torch.ones(1, 8, 1, 1),
    "wide": torch.ones(1, 8, 3, 70),
    "unbatched": torch.ones(8, 6, 5),
    "float64": torch.ones(2, 8, 6, 5, dtype=torch.float64),
    "bfloat16": torch.ones(2, 8, 6, 5, dtype=torch.bfloat16),
    "other channels": torch.ones(2, 4, 6, 5),
    "strided": torch.ones(2, 8, 12, 10)[..., ::2, ::2],
    "transposed": torch.ones(2, 5, 8, 6).permute(0, 2, 3, 1),
    "flat": torch.ones(2, 8),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.GroupNorm(2, 8),
        lambda: nn.Conv2d(8, 6, 3, padding=1),
        lambda: nn.Conv2d(8, 6, 5, stride=2),
        lambda: nn.Conv2d(8, 6, 1),
    ],
    ids=["norm", "conv3x3", "conv5x5", "conv1x1"],
)
@torch.no_grad()
def test_calls_unlike_the_example(layer, name):
    """The original's result, or the original's error."""
    torch.manual_seed(0)
    module = layer().eval()
    x = torch.randn_like(ODD[name]) if ODD[name].is_contiguous() else 0.5 * ODD[name]
    replacement = (
        fused_conv("conv", module)
        if isinstance(module, nn.Conv2d)
        else FusedGroupNorm("norm", module)
    )
    assert replacement.objection() is None
    replacement.forward(torch.randn(2, 8, 9, 7))
    try:
        want = replacement.original(x)
    except Exception as error:
        with pytest.raises(type(error)):
            replacement.forward(x)
    else:
        close(replacement.forward(x), want)


@torch.no_grad()
def test_autocast(net, example):
    """Its casts are torch's own: the original runs, place by place."""
    plain = copy.deepcopy(net)
    accelerate(net, *example)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(*example), plain(*example))


# Sampler


def test_a_network_of_text_without_null(diffusers):
    network = from_diffusers(
        cases.text_unet(diffusers), diffusers.DDIMScheduler(timestep_spacing="linspace")
    )
    with pytest.raises(ValueError, match=r"needs one \(text\), give null="):
        Sampler(network, "ddim", steps=2, accelerate=True).ready(2)


def test_a_network_of_text(diffusers):
    scheduler, text = diffusers.DDIMScheduler(timestep_spacing="linspace"), torch.randn(5, 24)
    null = {"encoder_hidden_states": torch.zeros(5, 24)}
    made = from_diffusers(cases.text_unet(diffusers), scheduler, null=null, clip=None)
    how = {"condition": {"encoder_hidden_states": text.expand(2, -1, -1)}, "guidance": 2.0}
    fast, plain = (
        Sampler(made, "ddim", steps=2, accelerate=a).sample(2, **how) for a in (True, False)
    )
    close(fast.samples, plain.samples)
