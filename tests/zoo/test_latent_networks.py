"""Cards of networks of latents: their text encoder, and the autoencoder that they name."""

import json

import pytest
import torch
from torch import nn

from diffusion_engine import Sampler, TextEncoder, zoo

CODEC = {"name": "autoencoder", "channels": [4, 4], "latent": 2, "blocks": 1}
UNET = {
    "name": "context_unet", "channels": [32, 32, 32], "blocks": [1, 1, 1], "emb": 8, "width": 384,
    "inputs": 2,
}  # fmt: skip
CARD = {
    "about": "Two channels.", "architecture": UNET, "process": {"name": "flow"}, "time": [0.001, 1.0],
    "prediction": "flow", "shape": [2, 4, 4], "context": [3, 384], "text": {"tokens": 3},
    "sampler": {"solver": "ddim", "steps": 2, "guidance": 4.0},
}  # fmt: skip


def drawn(architecture):
    torch.manual_seed(0)
    module = zoo.build(architecture)
    for p in module.parameters():
        nn.init.normal_(p, std=0.1)
    return module.eval()


@pytest.fixture
def folder(tmp_path):
    """A network of latents and its autoencoder."""
    module = drawn(CODEC)
    zoo.save(
        tmp_path / "codec.safetensors",
        module,
        {"architecture": CODEC, "scale_factor": 0.5, "shift": 0.25, "family": "autoencoder"},
    )
    about = zoo.card(tmp_path / "codec.safetensors")
    decoder = {"name": "codec.safetensors", "sha256": about.sha256, "scale_factor": 0.5}
    zoo.save(tmp_path / "net.safetensors", drawn(UNET), CARD | {"decoder": decoder})
    return tmp_path


def changed(folder, name, **fields):
    path = folder / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_card_makes_a_network_of_prompts_and_pictures(folder):
    network = zoo.load_network(folder / "net.safetensors")
    codec = zoo.load(folder / "codec.safetensors")
    assert network.text == TextEncoder(tokens=3)
    assert network.null.shape == (3, 384) and not network.null.any()
    made = Sampler(network, guidance=4.0).sample(condition=torch.randn(2, 3, 384))
    assert made.samples.shape == (2, 3, 16, 16) and made.recipe["decoder"]["shift"] == 0.25
    z = made.latents / 0.5 + 0.25
    with torch.no_grad():
        torch.testing.assert_close(made.samples, codec.decode(z))
        torch.testing.assert_close(network.decoder.preview(made.latents), codec.preview(z))
        image = torch.rand(1, 3, 16, 16)
        wanted = (codec.encode(image) - 0.25) * 0.5
    torch.testing.assert_close(network.decoder.encode(image), wanted)


def test_networks_of_one_autoencoder_share_it(folder):
    one, two = (zoo.load_network(folder / "net.safetensors").decoder for _ in range(2))
    assert one.module.whole is two.encoder.whole


@pytest.mark.parametrize(
    ("name", "fields", "error"),
    [
        ("codec", {"scale_factor": 0.7}, "with scale_factor=0.5, and .* has scale_factor=0.7"),
        ("codec", {"scale_factor": None}, "is no autoencoder"),
        ("net", {"decoder": {"name": "codec.safetensors", "sha256": "00"}}, "sha256=00, and"),
        ("net", {"decoder": {"name": "absent"}}, "'absent' does not ship"),
        ("net", {"text": {"tokens": 4}}, r"makes 4 tokens 384 wide, and context=\(3, 384\)"),
        ("net", {"text": {"name": "bert"}}, "bert"),
        ("net", {"text": {"words": 4}}, "words"),
    ],
    ids=str,
)  # fmt: skip
def test_a_card_that_does_not_fit_is_refused(folder, name, fields, error):
    changed(folder, name, **fields)
    with pytest.raises(ValueError, match=error):
        zoo.load_network(folder / "net.safetensors")


def test_latents_of_other_channels_are_refused(folder):
    decoder = zoo.load_network(folder / "net.safetensors").decoder
    with pytest.raises(ValueError, match=r"give a floating-point tensor \[n, 2, \*pixel\]"):
        decoder(torch.zeros(1, 3, 4, 4))


def test_an_autoencoder_is_a_part(folder):
    with pytest.raises(ValueError, match=r"is a part.*networks of its latents load it"):
        zoo.load_network(folder / "codec.safetensors")


def test_the_call_is_tried_with_the_context(folder):
    changed(folder, "net", context=[3, 5], text=None)
    with pytest.raises(ValueError, match=r"context \[3, 5\], and its architecture does not take"):
        zoo.load_network(folder / "net.safetensors")
