"""docs/gallery/ is what the networks that ship draw as their cards say, each picture with its recipe."""

import json
import shlex
import subprocess

import numpy as np
import pytest
from command import run
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from benchmarks.pages import gallery, rows
from benchmarks.pages.blocks import gallery as block
from diffusion_engine.cli import files
from diffusion_engine.sampler.spec import Spec
from diffusion_engine.zoo import cards

DRAWN = [name for name in cards.names() if cards.card(name).samples]
LARGEST = 70_000  # bytes


def test_every_network_that_samples_has_its_picture():
    assert sorted(path.stem for path in block.PICTURES.glob("*.png")) == DRAWN
    assert max(path.stat().st_size for path in block.PICTURES.glob("*.png")) <= LARGEST


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_of_the_card_s_run(name):
    recipe = files.read_recipe(block.PICTURES / f"{name}.png")
    asked = Spec.model_validate(cards.config(name)["sampler"])
    words = block.command(cards.described(name))
    prompts = [value for option, value in words if option == "--prompt"]
    assert recipe["network"] == name and recipe["solver"]["name"] == asked.solver.name
    assert len(recipe["points"]) == asked.steps + 1
    assert set(recipe["guidance"]) == {asked.guidance}
    assert recipe["condition"] == (prompts or [seed % 10 for seed in range(block.SEEDS)])
    assert recipe["seeds"] == list(range(len(recipe["condition"])))


def test_a_picture_draws_itself_again(capsys, tmp_path):
    path, again = block.PICTURES / "one_call.png", tmp_path / "again.png"
    run(capsys, "sample", "--recipe", path, "--out", again)
    assert gallery.shown(again)[1] == gallery.shown(path)[1]
    with Image.open(path) as old, Image.open(again) as new:
        apart = np.array(old, np.int16) - np.array(new, np.int16)
    assert np.abs(apart).max() <= 1  # torch's sums differ between processors in their last bit


def test_a_long_command_is_read_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(block, "PROMPTS", tmp_path / "prompts.txt")
    prompts = [f"at {n} o'clock, as a watch shows" for n in range(12)]
    block.PROMPTS.write_text("\n".join(prompts) + "\n")
    words = block.command({"name": "a_network", "context": (16, 384), "text": {"name": "some"}})
    text = block.folded(words)
    assert max(map(len, text.splitlines())) <= 110 and text.count("\n") > 2
    assert shlex.split(text.replace("\\\n", "")) == [word for part in words for word in part]
    assert words[2] == ("--seeds", "0-11")
    assert [p for o, p in words if o == "--prompt"] == prompts


def test_a_network_that_reads_neighbours_has_names():
    words = block.command({"name": "a_network", "context": (4, 384), "text": None})
    assert ("--database", block.NAMES) in words
    names = (block.ROOT / block.NAMES).read_text().splitlines()
    prompts = [value.split(" ", 1)[1] for option, value in words if option == "--prompt"]
    assert set(prompts) <= set(names) and len(names) == len(set(names)) == 4 * len(prompts)


def test_a_picture_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(block, "PICTURES", tmp_path)
    with pytest.raises(rows.Lacking, match=r"no .*cld\.png: draw it by .* --only cld"):
        block.gallery()


def png(path, recipe, grey=0):
    about = PngInfo()
    about.add_text(files.METADATA_KEY, json.dumps(recipe))
    Image.new("L", (4, 4), grey).save(path, "PNG", pnginfo=about)


def test_a_picture_is_written_where_it_changes(monkeypatch, tmp_path):
    recipe = files.read_recipe(block.PICTURES / "one_call.png")
    younger = {key: value for key, value in recipe.items() if key != "guider"}  # None, as left out
    seeds = recipe | {"seeds": recipe["seeds"][::-1]}
    made = [(recipe, 0), (younger, 0), (seeds, 0), (seeds, 9)]
    monkeypatch.setattr(gallery, "PICTURES", tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda words, **_: png(words[-1], *made.pop(0)))
    assert [gallery.draw(cards.described("digits")) for _ in range(4)] == [True, False, True, True]
    assert files.read_recipe(tmp_path / "digits.png") == seeds


def test_a_part_has_no_picture(capsys):
    with pytest.raises(SystemExit):
        gallery.main(["--only", "classifier"])
    assert "invalid choice: 'classifier'" in capsys.readouterr().err
