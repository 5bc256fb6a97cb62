"""--compose: several prompts or classes at once, alone and with a Markov chain at every level."""

import pytest
import torch
from command import run
from text_cases import drawn, flowing

from diffusion_engine import Sampler
from diffusion_engine.cli.files import read_recipe
from diffusion_engine.cli.pictures import read_array
from diffusion_engine.testing import labelled_mixture

MODEL = ("--model", "text_cases:drawn")
BOTH = ("--compose", "a cat=2", "--compose", "2 = blue=-0.5")
PAIRS = [("a cat", 2.0), ("2 = blue", -0.5)]
CHAIN = {"sampler": "ula", "steps": 2, "step": 0.1, "unit": "sigma"}
OPTIONS = [f"--driver-option={name}={value}" for name, value in CHAIN.items()]


@pytest.mark.parametrize("model", ["text_cases:drawn", "text_cases:flowing"])
@pytest.mark.parametrize("chain", [False, True])
def test_prompts_are_composed_and_a_png_makes_its_pictures_again(capsys, tmp_path, model, chain):
    out, again, arrays = (tmp_path / name for name in ("x.png", "y.png", "x.npz"))
    led = ("--driver", "annealed_mcmc", *OPTIONS) if chain else ()
    asked = ("--model", model, "--solver", "ddpm", "--steps", 3, *BOTH, *led, "--seeds", "4-5")
    run(capsys, "sample", *asked, "--out", out)
    run(capsys, "sample", *asked, "--out", arrays)
    driver = {"name": "annealed_mcmc", "options": CHAIN} if chain else None
    network = drawn() if model.endswith("drawn") else flowing()
    want = Sampler(network, "ddpm", 3, driver=driver).sample(seeds=[4, 5], compose=PAIRS)
    assert torch.equal(read_array(arrays), want.samples) and read_recipe(out) == want.recipe
    assert want.nfe == (9 if chain else 3)
    assert want.recipe["compose"] == [["a cat", "2 = blue"]] * 2
    run(capsys, "sample", "--model", model, "--recipe", out, "--out", again)
    assert again.read_bytes() == out.read_bytes()


def test_prompts_are_composed_as_their_tokens_are():
    for driver in (None, {"name": "annealed_mcmc", "options": CHAIN}):
        sampler = Sampler(drawn(), "ddpm", 3, driver=driver)
        told = [(sampler.network.text([prompt] * 2), weight) for prompt, weight in PAIRS]
        made, want = (sampler.sample(2, compose=pairs).samples for pairs in (PAIRS, told))
        assert torch.equal(made, want)


def test_one_sample_unless_more_are_asked_for_and_a_negative_prompt(capsys, tmp_path):
    out = tmp_path / "x.npz"
    run(capsys, "sample", *MODEL, *BOTH, "--negative-prompt", "a dog", "--out", out)
    want = Sampler(drawn()).sample(compose=PAIRS, negative="a dog")
    assert torch.equal(read_array(out), want.samples) and len(want.samples) == 1
    assert not torch.equal(Sampler(drawn()).sample(compose=PAIRS).samples, want.samples)


def test_classes_are_composed(capsys, tmp_path):
    out = tmp_path / "x.npz"
    model = (
        "--model",
        "diffusion_engine.testing:labelled_mixture",
        "--solver",
        "ddim",
        "--steps",
        3,
    )
    run(capsys, "sample", *model, "--compose", "1=1", "--compose", "0=0.5", "--n", 2, "--out", out)
    want = Sampler(labelled_mixture(), "ddim", 3).sample(2, compose=[(1, 1.0), (0, 0.5)])
    assert torch.equal(read_array(out), want.samples) and read_recipe(out) == want.recipe
    _, err = run(capsys, "sample", *model, "--compose", "a cat=1", "--out", out, code=2)
    assert "takes a class, 0 to 2, and no prompt; got the prompt 'a cat'" in err
    _, err = run(capsys, "sample", *model, "--compose", "7=1", "--out", out, code=2)
    assert "knows classes 0 to 2; got" in err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--compose", "a cat"), "--compose 'a cat': write a prompt or a class and its weight, as"),
        (("--compose", "a cat=much"), "--compose 'a cat=much': write"),
        (("--compose", "a cat=nan"), "--compose 'a cat=nan': write"),
        (("--compose", "=1"), "--compose '=1': write"),
        (("--compose", " =1"), "is an empty text"),
        ((*BOTH, "--prompt", "a"), "what samples follow and how much: leave out --prompt"),
        ((*BOTH, "--class", "all", "--guidance", 2), "leave out --class, --guidance"),
        ((*BOTH, "--save-plan", "plan.json"), "--save-plan writes the plan of one condition"),
        ((*BOTH, "--recipe", "x.npz"), "leave out --compose, or --recipe"),
        ((*BOTH, "--plan", "plan.json"), "--plan says --compose itself"),
    ],
    ids=str,
)
def test_what_is_not_composed_is_said(capsys, tmp_path, monkeypatch, options, error):
    monkeypatch.chdir(tmp_path)
    if "--recipe" in options:
        run(capsys, "sample", *MODEL, "--prompt", "a", "--out", "x.npz")
    if "--plan" in options:
        run(capsys, "sample", *MODEL, "--save-plan", "plan.json", "--out", "x.npz")
    _, err = run(capsys, "sample", *MODEL, *options, "--out", "y.npz", code=2)
    assert error in err and not (tmp_path / "y.npz").exists()
