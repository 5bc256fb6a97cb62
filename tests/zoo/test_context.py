"""The networks of latents: tokens of zeros are none, no place of a picture depends on what is far from it."""

import pytest
import torch
from torch import nn

from diffusion_engine import zoo
from diffusion_engine.networks.decoder import Decoder
from diffusion_engine.zoo.autoencoder import Autoencoder
from diffusion_engine.zoo.context import ContextUNet, CrossAttention

SMALL = {"channels": (32, 32, 32), "blocks": (1, 1, 1), "emb": 16, "width": 12}


def drawn(module, seed=0):
    """Weights that no layer has at zero."""
    torch.manual_seed(seed)
    for p in module.parameters():
        nn.init.normal_(p, std=0.1)
    return module.eval()


def given(n=2, tokens=3):
    torch.manual_seed(1)
    return torch.randn(n, 4, 8, 8), torch.rand(n), torch.randn(n, tokens, 12)


def test_attention_to_tokens_is_its_formula():
    """softmax over q k / sqrt(32) and a 1 in the denominator for every token of zeros."""
    layer = drawn(CrossAttention(32, 12))
    x, context = torch.randn(1, 32, 2, 2), torch.randn(1, 3, 12)
    context[:, 2] = 0.0
    q = layer.q(layer.norm(x)).flatten(2)[0].T
    k, v = layer.kv(context)[0].chunk(2, dim=1)
    weight = (q @ k[:2].T / 32**0.5).exp()
    mixed = weight @ v[:2] / (weight.sum(dim=1, keepdim=True) + 1.0)
    wanted = x + layer.out(mixed.T.reshape(1, 32, 2, 2))
    torch.testing.assert_close(layer(x, context), wanted, rtol=1e-4, atol=1e-5)


def test_the_context_decides_and_zeros_are_none():
    network, (x, t, context) = drawn(ContextUNet(**SMALL)), given()
    with torch.no_grad():
        made, other = network(x, t, context), network(x, t, context.flip(0))
        none = network(x, t, torch.zeros_like(context))
        assert made.shape == x.shape and not torch.allclose(made, other, atol=1e-3)
        torch.testing.assert_close(network(x, t, torch.zeros(2, 5, 12)), none)


def test_a_scale_that_is_told_begins_as_nothing():
    x, t, context = given()
    network = ContextUNet(**SMALL, guided=True)
    drawn(network)
    nn.init.zeros_(network.scale[-1].weight)
    nn.init.zeros_(network.scale[-1].bias)
    with torch.no_grad():
        plain = network(x, t, context)
        torch.testing.assert_close(network(x, t, context, torch.tensor([2.0, 6.0])), plain)
        drawn(network, seed=2)
        assert not torch.allclose(network(x, t, context, torch.tensor([2.0, 6.0])), plain)


@pytest.mark.parametrize(
    "wrong", [{"channels": (32, 32, 48)}, {"emb": 3}, {"blocks": (1, 0, 1)}, {"width": 0}, {"fastest": 0.0}]
)  # fmt: skip
def test_what_does_not_fit_is_said(wrong):
    with pytest.raises(ValueError, match="do not fit"):
        ContextUNet(**(SMALL | wrong))
    with pytest.raises(ValueError, match="do not fit; give 1 or more"):
        Autoencoder(latent=0)


def test_tiles_of_latents_make_the_whole_picture():
    """Of 1 block a pixel depends on no latent that is farther than 4 + 1 away."""
    module = drawn(Autoencoder((8, 8), blocks=1))
    z = torch.randn(1, 4, 48, 48)
    with torch.no_grad():
        whole = Decoder(module.decode)(z)
        tiled = Decoder(module.decode, tile=40, overlap=0.5)(z)
    assert whole.shape == (1, 3, 192, 192)
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-4)


def test_the_shipped_autoencoder_brings_a_picture_back():
    """A red disc on white, which is no picture that it was trained on."""
    side = torch.arange(64.0) - 31.5
    disc = (side[:, None] ** 2 + side**2 < 24.0**2).float()
    x = torch.stack([torch.ones(64, 64), 1.0 - 2.0 * disc, 1.0 - 2.0 * disc])[None]
    module, card = zoo.load("emoji_autoencoder"), zoo.card("emoji_autoencoder")
    with torch.no_grad():
        z = module.encode(x)
        assert z.shape == (1, 4, 16, 16)
        assert (module.decode(z) - x).square().mean() < 0.01
        shown = module.preview(z)
    assert (shown - nn.functional.avg_pool2d(x, 4)).square().mean() < 0.1
    assert card.scale_factor > 0.0 and not card.samples
