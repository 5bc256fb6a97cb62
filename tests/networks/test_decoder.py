"""Latents to images: scale, tiles, diffusers' autoencoder, and the sampler's result."""

import json
from dataclasses import replace

import pytest
import torch
from optional import diffusers
from torch import nn
from torch.nn import functional

from diffusion_engine import Decoder, Sampler, ScoreNetwork, decoder_from_diffusers, profile, trace
from diffusion_engine.processes import VP

SHAPE = (4, 8, 8)


def elementwise(x, label):
    return x * 0.7 - 0.05 * label.view(-1, 1, 1, 1)


def pointwise(z):
    """Every latent becomes a square of 4 x 4 pixels."""
    return functional.interpolate(z[:, :3].sin() + z[:, 1:], scale_factor=4, mode="nearest")


class Local(nn.Module):
    """A convolution over 3 x 3 latents, and pixels between them."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z):
        return functional.interpolate(self.conv(z), scale_factor=2, mode="nearest")


def sampler(**options):
    return Sampler(ScoreNetwork(elementwise, VP(), SHAPE), "ddim", 3, **options)


def test_samples_are_images_and_latents_are_kept():
    plain = sampler().sample(3)
    made = sampler(decoder=Decoder(pointwise, 0.5, shift=0.1)).sample(3, batch_size=2)
    assert plain.latents is None
    assert torch.equal(made.latents, plain.samples)
    assert made.samples.shape == (3, 3, 32, 32)
    assert torch.equal(made.samples, pointwise(made.latents / 0.5 + 0.1))
    assert not sampler(decoder=Decoder(Local(), 0.5)).sample(1).samples.requires_grad


@pytest.mark.parametrize("shape", [(2, 4, 21, 34), (1, 4, 8, 40), (1, 4, 9, 9), (3, 4, 5, 3)])
@pytest.mark.parametrize("tile, overlap", [(8, 0.25), (9, 0.5), (7, 0.0), (8, 0.4)])
def test_tiles_of_a_pointwise_decoder_leave_no_trace(shape, tile, overlap):
    z = torch.randn(shape)
    whole, tiled = Decoder(pointwise), Decoder(pointwise, tile=tile, overlap=overlap)
    assert torch.equal(tiled(z), whole(z))


def test_tiles_of_a_local_decoder():
    module, z = Local(), torch.randn(2, 4, 37, 50)
    with torch.no_grad():
        whole = Decoder(module)(z)
        wide = Decoder(module, tile=16, overlap=0.375)(z)  # reaches 1 latent; 16 x 0.375 / 4 = 1.5
        narrow = Decoder(module, tile=16, overlap=0.125)(z)
    assert torch.allclose(wide, whole, rtol=0, atol=1e-5)
    seams = (narrow - whole).abs()
    assert seams.max() > 1e-3 and seams.mean() < 0.05


def test_no_more_than_a_tile_is_decoded_at_once():
    sizes = []

    def module(z):
        sizes.append(tuple(z.shape))
        return pointwise(z)

    Decoder(module, tile=8, batch_size=2)(torch.randn(5, 4, 20, 20))
    assert {s[2:] for s in sizes} == {(8, 8)} and {s[0] for s in sizes} == {1, 2}
    assert len(sizes) == 3 * 9


def vae(**options):
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, scaling_factor=0.3,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        shift_factor=0.2, **options,
    ).eval()  # fmt: skip


def test_autoencoder_of_diffusers():
    module = vae()
    decoder = decoder_from_diffusers(module)
    assert (decoder.scale_factor, decoder.shift, decoder.channels) == (0.3, 0.2, 4)
    made = sampler(decoder=decoder).sample(2)
    with torch.no_grad():
        want = module.decode(made.latents / 0.3 + 0.2).sample
    assert torch.allclose(made.samples, want, rtol=0, atol=1e-6)
    half = decoder_from_diffusers(module.to(torch.bfloat16))
    assert sampler(decoder=half).sample(2).samples.dtype == torch.float32


class Broken(nn.Module):
    """A decoder that overflows on the second image of a batch."""

    def forward(self, z):
        image = pointwise(z)
        image[1:2, :, 3, 5] = float("inf")
        return image


def test_an_image_that_is_not_finite_is_flagged():
    own, sound = sampler(decoder=Decoder(Broken())), sampler(decoder=Decoder(pointwise))
    with pytest.warns(
        RuntimeWarning, match=r"the decoder made values .* latents of seeds \[8\]: check"
    ):
        made = own.sample(3, seed=7)
    assert made.finite == [True, False, True]
    assert torch.equal(made.samples[::2], sound.sample(3, seed=7).samples[::2])

    def lost(x, label):
        return torch.where(torch.arange(len(x)).view(-1, 1, 1, 1) == 0, torch.nan, x)

    broken = Sampler(ScoreNetwork(lost, VP(), SHAPE), "ddim", 3, decoder=Decoder(Broken()))
    with pytest.warns(RuntimeWarning) as said:
        assert broken.sample(3).finite == [False, False, True]
    assert ["seeds [0]" in str(w.message) for w in said] == [True, False]
    assert "latents of seeds [1]" in str(said[1].message)


def test_latents_that_were_encoded_stay_latents():
    plain, own = sampler(), sampler(decoder=Decoder(pointwise))
    x = torch.rand(2, *SHAPE) - 0.5
    made = own.encode(x)
    assert made.latents is None and torch.equal(made.samples, plain.encode(x).samples)


def test_a_recipe_is_replayed_with_its_decoder():
    own = sampler(decoder=Decoder(pointwise, 0.5, shift=0.1))
    made, network = own.sample(3), own.network
    recipe = json.loads(json.dumps(made.recipe))
    assert recipe["decoder"] == {"scale_factor": 0.5, "shift": 0.1}
    with pytest.raises(ValueError, match="images that a decoder made: give how="):
        Sampler.replay(network, recipe)
    latents = Sampler.replay(network, recipe, {"decoder": None})
    assert torch.equal(latents.samples, made.latents)
    other = Decoder(pointwise, 0.5, shift=0.1, tile=4)
    again = Sampler.replay(network, recipe, {"decoder": other})
    assert torch.equal(again.samples, made.samples) and torch.equal(again.latents, made.latents)
    with pytest.raises(
        ValueError, match=r"decoded with scale_factor=0\.5 and .* has scale_factor=0\.3"
    ):
        Sampler.replay(network, recipe, {"decoder": Decoder(pointwise, 0.3, shift=0.1)})
    plain = sampler().sample(2).recipe
    assert plain["decoder"] is None and Sampler.replay(network, plain).latents is None
    del plain["decoder"]  # as recipes were before
    assert Sampler.replay(network, plain).samples.shape == (2, *SHAPE)


def test_tiles_of_a_decoder_in_half_precision_are_joined_in_float32():
    z = torch.full((1, 4, 8, 200), 0.3)
    flat = nn.ConvTranspose2d(4, 3, 8, 8).bfloat16()
    made = Decoder(flat, tile=128, overlap=0.5)(z)
    tiles = [Decoder(flat)(z[..., :128]), Decoder(flat)(z[..., 72:])]
    assert made.dtype == torch.float32 and made.shape == (1, 3, 64, 1600)
    assert torch.equal(made[..., : 576 + 112], tiles[0][..., : 576 + 112])
    flip = 1.0

    def stepped(z):  # tiles that differ show the weights of the blend
        nonlocal flip
        flip = -flip
        return flip * torch.ones(len(z), 1, *z.shape[2:]).bfloat16()

    ramp = Decoder(stepped, tile=1024, overlap=0.5)(torch.zeros(1, 4, 1, 1536))[0, 0, 0, 512:1024]
    place = (torch.arange(512) + 0.5) / 512
    assert torch.allclose(
        ramp.abs(), (2.0 * (2.0 * place - 0.5).clamp(0, 1) - 1.0).abs(), atol=1e-6
    )


def test_decoding_is_a_range_and_a_part_of_a_profile():
    names = []

    def listener(name, payload):
        names.append(name)
        return trace.nullcontext()

    own = sampler(decoder=Decoder(Local()))
    with trace.listening("test", listener):
        own.sample(2)
    assert names.count("decode") == 1 and names.index("decode") > len(names) - 1 - names[
        ::-1
    ].index("step")
    found = profile(own, 2, runs=2)
    top = [part for part in found.parts if part.within is None]
    assert [part.name for part in top] == ["network", "step", "decode", "host gaps"]
    assert sum(part.seconds for part in top) == pytest.approx(found.seconds)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Decoder(pointwise, 0.0), "scale_factor=0.0: latents are divided by it"),
        (lambda: Decoder(pointwise, float("nan")), "scale_factor=nan"),
        (lambda: Decoder(pointwise, shift=float("inf")), "shift=inf"),
        (lambda: Decoder(pointwise, "0.2"), "scale_factor='0.2'"),
        (lambda: Decoder(3), "module=3: give a torch.nn.Module or a function"),
        (lambda: Decoder(pointwise, tile=4.5), "tile=4.5: at least 2"),
        (lambda: sampler(decoder=pointwise), "decoder=function: give Decoder"),
        (lambda: sampler(decoder=vae()), "decoder=AutoencoderKL: give Decoder"),
        (
            lambda: decoder_from_diffusers(vae(latents_mean=[0.0] * 4, latents_std=[2.0] * 4)),
            "AutoencoderKL scales each channel",
        ),
        (lambda: Decoder(pointwise, tile=1), "tile=1: at least 2"),
        (lambda: Decoder(pointwise, overlap=0.6), "overlap=0.6"),
        (lambda: Decoder(pointwise, batch_size=0), "batch_size=0"),
        (
            lambda: sampler(decoder=Decoder(pointwise, channels=16)),
            "takes latents of 16 channels and the network makes 4",
        ),
        (lambda: Decoder(lambda z: z[..., :3])(torch.zeros(1, 4, 8, 8)), "made \\[1, 4, 8, 3\\] of latents"),
        (lambda: Decoder(lambda z: (z,))(torch.zeros(1, 4, 8, 8)), "made tuple of latents"),
        (lambda: decoder_from_diffusers(nn.Conv2d(1, 1, 1)), "give an autoencoder of diffusers"),
        (
            lambda: decoder_from_diffusers(diffusers.UNet2DModel(sample_size=8, norm_num_groups=32)),
            "UNet2DModel is no autoencoder",
        ),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def coded(**options):
    """2 x 2 pixels of three channels a latent, and their means of the first two."""
    linear = nn.Conv2d(2, 3, 1)

    def encoder(x):
        return functional.avg_pool2d(x[:, :2], 2)

    def module(z):
        return functional.interpolate(
            torch.cat([z, z[:, :1]], dim=1), scale_factor=2, mode="nearest"
        )

    return Decoder(module, 0.5, shift=0.1, encoder=encoder, preview=linear, **options), linear


def test_what_is_decoded_is_encoded_again():
    decoder, _ = coded(batch_size=2)
    z = torch.randn(5, 2, 3, 4)
    torch.testing.assert_close(decoder.encode(decoder(z)), z)
    assert decoder.image_shape((2, 3, 4)) == (3, 6, 8)
    with pytest.raises(ValueError, match=r"images=3: give a floating-point tensor \[n, channels"):
        decoder.encode(3)
    with pytest.raises(ValueError, match="the decoder has no encoder"):
        Decoder(pointwise).encode(torch.zeros(1, 3, 4, 4))
    flat = Decoder(pointwise, encoder=lambda x: x.flatten(1))
    with pytest.raises(ValueError, match=r"the encoder made Tensor .*has to return"):
        flat.encode(torch.zeros(1, 3, 4, 4))


def test_previews_are_a_linear_map_of_what_is_decoded():
    decoder, linear = coded()
    z = torch.randn(2, 2, 3, 4)
    with torch.no_grad():
        wanted = linear(z / 0.5 + 0.1)
    shown = decoder.preview(z)
    assert torch.equal(shown, wanted) and not shown.requires_grad
    other = replace(decoder, scale_factor=1.0, shift=0.0)
    with torch.no_grad():
        assert torch.equal(other.preview(z), linear(z))
    assert Decoder(pointwise).preview is None
    with pytest.raises(ValueError, match="preview=3: give a linear map"):
        Decoder(pointwise, preview=3)


def test_a_copy_on_another_device_shares_what_its_parts_share():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(2, 2, 1)

        def forward(self, z):
            return self.layer(z)

    whole = Whole()
    placed = Decoder(whole, encoder=whole, preview=whole).placed((2, 4, 4), torch.device("meta"))
    assert placed.module is placed.encoder is placed.preview.linear is not whole
    assert placed.module.layer.weight.is_meta and not whole.layer.weight.is_meta
