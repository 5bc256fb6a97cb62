"""Recipes in files: strict JSON of known keys, and what is refused."""

import json

import pytest
import torch
from command import run
from picture_files import saved
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusion_engine import Sampler
from diffusion_engine.cli import files
from diffusion_engine.sampler.spec import Recipe
from diffusion_engine.testing import exact_network

# ---------------------------------------------------------------- recipes


@pytest.fixture
def made(tmp_path):
    """Samples of a network of two elements, in a file with their recipe."""
    result = Sampler(exact_network("heun", (1, 1, 2)), "heun", 2).sample(2)
    path = tmp_path / "made.png"
    files.write(path, result)
    return path, result.recipe


def test_a_recipe_is_strict_json_of_known_keys(made):
    path, recipe = made
    text = Image.open(path).text[files.METADATA_KEY]
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert files.read_recipe(path) == recipe and recipe.keys() == Recipe.model_fields.keys()
    large = path.with_name("large.png")
    about = PngInfo()
    about.add_text(files.METADATA_KEY, text)
    Image.new("1", (20_000, 10_000)).save(large, pnginfo=about)  # beyond Pillow's limit
    assert files.read_recipe(large) == recipe


@pytest.mark.parametrize(
    "options",
    [
        ("--steps", 5), ("--seeds", "3-4"), ("--n", 2), ("--class", "all"), ("--guidance", 2),
        ("--grid", "karras"), ("--end", "zero"), ("--option", "s_churn=1"), ("--solver", "heun"),
        ("--start", 0.5), ("--noised",), ("--noise", "brownian"), ("--save-plan", "p.json"),
        ("--x", "made.png"),
    ],
)  # fmt: skip
def test_what_a_recipe_says_is_not_said_again(capsys, tmp_path, monkeypatch, made, options):
    monkeypatch.chdir(tmp_path)
    given = ("--recipe", made[0], "--model", "exact", "--out", "x.npz", "--backend", "torch")
    _, err = run(capsys, "sample", *given, *options, code=2)
    assert f"as they were made: leave out {options[0]}, or --recipe" in err
    assert not (tmp_path / "x.npz").exists()


def test_a_recipe_names_its_network(capsys, tmp_path, made):
    _, err = run(capsys, "sample", "--recipe", made[0], "--out", tmp_path / "x.npz", code=2)
    assert "does not ship; say which it is by --model" in err
    path = tmp_path / "genie.json"
    path.write_text(json.dumps(made[1] | {"network": "digits_genie"}))
    few = ("--recipe", path, "--out", tmp_path / "x.npz", "--json")
    about = json.loads(run(capsys, "sample", *few)[0])
    assert about["recipe"]["network"] == "digits_genie"


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"format": "diffusion-engine-recipe/3"},
            "format is 'diffusion-engine-recipe/3' and this version",
        ),
        ({"format": None}, "format is None and this version reads"),
        ({"rng": "mt19937/1"}, "rng is 'mt19937/1' and this version"),
        ({"rng": "philox4x32-10/1", "needs": ["x"]}, "rng is 'philox4x32-10/1' and this version"),
        ({"stepz": 3}, "a recipe has no stepz"),
        ({"points": [["a", 1, 2], [0, 1, 0]]}, "not a recipe of this engine"),
        ({"points": 7}, "not a recipe of this engine"),
        ({"dtype": "load"}, "not a recipe of this engine"),
        ({"dtype": "no_such"}, "not a recipe of this engine"),
        ({"solver": "heun"}, "not a recipe of this engine, it names no solver"),
        (
            {"solver": {"name": "heun", "options": {"s_churn": "much"}}},
            "s_churn='much': give a finite number",
        ),
        ({"solver": {"name": "unipc", "options": {"order": 2}}}, "did you mean max_order?"),
        ({"interval": None}, "not a recipe of this engine"),
        ({"interval": [True, 3.0]}, "not a recipe of this engine"),
    ],
)
def test_recipes_that_are_refused(capsys, tmp_path, made, change, message):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"recipe": made[1] | change}))
    given = ("--recipe", path, "--model", "exact", "--out", tmp_path / "x.npz")
    _, err = run(capsys, "sample", *given, code=2)
    assert message in err and err.count("\n") == 1 and not (tmp_path / "x.npz").exists()


def test_a_recipe_of_the_rng_before_draws_the_same(made):
    recipe = made[1] | {"rng": "philox4x32-10/1"}
    again = Sampler.replay(exact_network("heun", (1, 1, 2)), recipe).samples
    assert torch.equal(again, Sampler.replay(exact_network("heun", (1, 1, 2)), made[1]).samples)


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "of its own it has 'parameters'"),
        ("{", "holds no recipe of this engine"),
        ("[1]", "says no format"),
        ('{"a": 1}', "says no format"),
        ("[" * 5000, "holds no recipe of this engine"),
    ],
)
def test_metadata_of_others(capsys, tmp_path, text, message):
    about = PngInfo()
    about.add_text("parameters", "a cat, Steps: 20")
    if text is not None:
        about.add_text(files.METADATA_KEY, text)
    path = saved(tmp_path, Image.new("L", (4, 4)), pnginfo=about)
    jpeg = saved(tmp_path, Image.new("L", (4, 4)), "jpeg.png", format="JPEG")
    for name, said in ((path, message), (jpeg, "holds no recipe of this engine")):
        _, err = run(capsys, "sample", "--recipe", name, "--out", tmp_path / "x.npz", code=2)
        assert said in err and err.count("\n") == 1
