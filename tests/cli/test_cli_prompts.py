"""Prompts, pictures and recipes of a text network on the command line."""

import json

import numpy as np
import pytest
import torch
from command import run
from PIL import Image
from text_cases import TOKENS, WIDTH, attending, codec, drawn

from diffusion_engine import Sampler
from diffusion_engine.cli.files import read_recipe
from diffusion_engine.cli.given import read_region, read_state

MODEL = ("--model", "text_cases:drawn")


def npz(path):
    with np.load(path) as arrays:
        return torch.from_numpy(arrays["samples"])


@pytest.fixture
def picture(tmp_path):
    """A picture [3, 8, 8] that the codec keeps, and it as a tensor."""
    z = torch.linspace(-0.4, 0.4, 32).view(1, 2, 4, 4)
    image = codec()((z - 0.5) * 2.0)
    pixels = (image[0] * 127.5 + 127.5).round().byte()
    path = tmp_path / "picture.png"
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    return path, pixels[None] / 127.5 - 1.0


def test_as_many_pictures_as_prompts_guided_as_the_network_says(capsys, tmp_path):
    out = tmp_path / "x.npz"
    prompts = ("--prompt", "a red heart", "--prompt", "a slice of pizza")
    run(capsys, "sample", *MODEL, *prompts, "--negative-prompt", "blue", "--out", out)
    want = Sampler(drawn(), guidance=3.0).sample(
        condition=["a red heart", "a slice of pizza"], negative="blue"
    )
    assert torch.equal(npz(out), want.samples) and read_recipe(out) == want.recipe


def test_prompts_are_taken_in_turn_and_a_png_makes_its_pictures_again(capsys, tmp_path):
    out, again = tmp_path / "x.png", tmp_path / "y.png"
    run(capsys, "sample", *MODEL, "--prompt", "a", "--prompt", "b", "--n", 5, "--out", out)
    assert read_recipe(out)["condition"] == ["a", "b", "a", "b", "a"]
    assert Image.open(out).size == (2 * 10 + 2, 3 * 10 + 2)  # a column a prompt
    run(capsys, "sample", *MODEL, "--recipe", out, "--out", again)
    assert again.read_bytes() == out.read_bytes()


def test_without_a_prompt_and_by_seeds(capsys, tmp_path):
    out = tmp_path / "x.npz"
    run(capsys, "sample", *MODEL, "--seeds", "3-4", "--out", out)
    assert torch.equal(npz(out), Sampler(drawn()).sample(seeds=[3, 4]).samples)
    run(capsys, "sample", *MODEL, "--seeds", "3-4", "--prompt", "a", "--out", out)
    assert read_recipe(out)["condition"] == ["a", "a"]


def test_image_to_image_of_one_picture_and_several_prompts(capsys, tmp_path, picture):
    path, image = picture
    out, again = tmp_path / "x.npz", tmp_path / "y.npz"
    x = ("--x", path, "--start", 0.5)
    run(capsys, "sample", *MODEL, *x, "--prompt", "a", "--prompt", "b", "--out", out)
    z = codec().encode(image)
    want = Sampler(drawn(), guidance=3.0).sample(
        condition=["a", "b"], x=z.expand(2, -1, -1, -1), start=0.5
    )
    assert torch.equal(npz(out), want.samples)
    run(capsys, "sample", *MODEL, "--recipe", out, "--x", path, "--out", again)
    assert torch.equal(npz(again), want.samples)


def test_a_known_part_stays_as_the_decoder_shows_it(capsys, tmp_path, picture):
    path, image = picture
    free = np.zeros((8, 8), np.uint8)
    free[:, 5:] = 255  # the third column of latents has a free pixel
    Image.fromarray(free).save(tmp_path / "mask.png")
    region = read_region(path, tmp_path / "mask.png", drawn())
    assert region["mask"][0, 0, 0].tolist() == [0.0, 0.0, 1.0, 1.0]
    out = tmp_path / "x.npz"
    keeps = ("--known", path, "--mask", tmp_path / "mask.png")
    run(capsys, "sample", *MODEL, *keeps, "--prompt", "a", "--prompt", "b", "--out", out)
    made = npz(out)
    assert made.shape == (2, 3, 8, 8)
    torch.testing.assert_close(
        made[:, :, :, :4], image[..., :4].expand(2, -1, -1, -1), rtol=0, atol=0.01
    )
    assert not torch.allclose(made[:, :, :, 4:], image[..., 4:].expand(2, -1, -1, -1))
    assert read_recipe(out)["needs"] == ["mask", "known"]
    _, err = run(capsys, "sample", *MODEL, *keeps[:2], "--prompt", "a", "--out", out, code=2)
    assert "--known and --mask go together" in err


def test_encode_and_draw_again_with_another_prompt(capsys, tmp_path, picture):
    latents, out = tmp_path / "z.npz", tmp_path / "x.npz"
    same = (*MODEL, "--solver", "ddim", "--steps", 5, "--guidance", 1)
    run(capsys, "encode", picture[0], *same, "--prompt", "a cat", "--out", latents)
    want = Sampler(drawn(), "ddim", 5).encode(codec().encode(picture[1]), condition="a cat")
    assert torch.equal(npz(latents), want.samples) and npz(latents).shape == (1, 2, 4, 4)
    again = ("--x", latents, "--noised", "--prompt", "a dog", "--out", out)
    run(capsys, "sample", *same, *again)
    redrawn = Sampler(drawn(), "ddim", 5).sample(x=want.samples, noised=True, condition=["a dog"])
    assert torch.equal(npz(out), redrawn.samples)


def test_latents_are_read_as_they_are(tmp_path):
    z = np.full((2, 2, 4, 4), 0.25, np.float32)
    np.savez(tmp_path / "z.npz", samples=z)
    assert np.array_equal(read_state(tmp_path / "z.npz", drawn()), z)


@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        (MODEL, ("--class", "3"), "the network 'letters' takes prompts and no class; leave it out"),
        (MODEL, ("--class", "3", "--prompt", "a"), "takes prompts and no class"),
        (MODEL, ("--prompt", ""), "is an empty text"),
        (MODEL, ("--prompt", "a" * 10_000), "has 10000 characters"),
        (MODEL, ("--prompt", "a", "--prompt", "b", "--guidance", 1, "--negative-prompt", "c"),
         "guidance=1 calls no unconditional branch"),
        (("--model", "digits"), ("--prompt", "a cat"),
         "the network 'digits' takes a class, 0 to 9, and no prompt; got the prompt 'a cat'"),
        (("--model", "digits"), ("--negative-prompt", "a cat"), "takes a class, 0 to 9, and no"),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_network_does_not_take_is_said(capsys, tmp_path, model, options, error):
    _, err = run(capsys, "sample", *model, *options, "--out", tmp_path / "x.npz", code=2)
    assert error in err and not (tmp_path / "x.npz").exists()


def test_a_missing_extra_is_one_sentence(capsys, tmp_path, monkeypatch):
    def missing(prompts):
        raise ImportError("prompts are encoded with it: pip install 'diffusion-engine[text]'")

    monkeypatch.setattr(
        "text_cases.drawn", lambda: attending(text=missing, null=torch.zeros(TOKENS, WIDTH))
    )
    asked = ("--prompt", "a", "--out", tmp_path / "x.npz")
    _, err = run(capsys, "sample", *MODEL, *asked, code=2)
    assert err == (
        "diffusion-engine: prompts are encoded with it: pip install 'diffusion-engine[text]'\n"
    )


def test_compare_profile_and_likelihood_take_prompts(capsys, tmp_path):
    out = tmp_path / "x.png"
    told = (*MODEL, "--prompt", "a cat")
    runs = ("--steps", "2", "--n", 2, "--fine-steps", 4, "--out", out, "--json")
    made, _ = run(capsys, "compare", "--solvers", "ddim", *told, *runs)
    assert out.exists() and json.loads(made)
    run(capsys, "profile", *told, "--n", 1, "--runs", 1, "--steps", 1, "--out", tmp_path / "p.json")
    np.savez(tmp_path / "z.npz", samples=np.zeros((1, 2, 4, 4), np.float32))
    asked = ("--solver", "ddim", "--steps", 2, "--no-dequantise", "--json")
    told_a, _ = run(capsys, "likelihood", tmp_path / "z.npz", *told, *asked)
    alone, _ = run(capsys, "likelihood", tmp_path / "z.npz", *MODEL, *asked)
    assert json.loads(told_a) != json.loads(alone)
