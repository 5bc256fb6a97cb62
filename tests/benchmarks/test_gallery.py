"""docs/gallery/ is what the networks that ship draw as their cards say, each picture with its recipe."""

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import run
from PIL import Image

from benchmarks.pages import gallery
from benchmarks.pages.blocks import gallery as block
from diffusion_engine.cli import files
from diffusion_engine.sampler.spec import Spec
from diffusion_engine.zoo import cards

DRAWN = [name for name in cards.names() if cards.card(name).samples]
LARGEST = 60_000  # bytes


def test_every_network_that_samples_has_its_picture():
    assert sorted(path.stem for path in block.PICTURES.iterdir()) == DRAWN
    assert max(path.stat().st_size for path in block.PICTURES.iterdir()) <= LARGEST


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
    assert files.read_recipe(again) == files.read_recipe(path)
    with Image.open(path) as old, Image.open(again) as new:
        apart = np.array(old, np.int16) - np.array(new, np.int16)
    assert np.abs(apart).max() <= 1  # torch's sums differ between processors in their last bit


def test_a_long_command_is_read_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setattr(block, "PROMPTS", tmp_path / "prompts.txt")
    prompts = [f"at {n} o'clock, as a watch shows" for n in range(12)]
    block.PROMPTS.write_text("\n".join(prompts) + "\n")
    words = block.command({"name": "a_network", "text": {"name": "some"}})
    text = block.folded(words)
    assert max(map(len, text.splitlines())) <= 110 and text.count("\n") > 2
    assert shlex.split(text.replace("\\\n", "")) == [word for part in words for word in part]
    assert words[2] == ("--seeds", "0-11") and [p for o, p in words if o == "--prompt"] == prompts


def test_a_file_is_written_where_its_bytes_change(monkeypatch, tmp_path):
    made = [b"one", b"one", b"two"]
    monkeypatch.setattr(gallery, "PICTURES", tmp_path)
    monkeypatch.setattr(
        subprocess, "run", lambda words, **_: Path(words[-1]).write_bytes(made.pop(0))
    )
    about = cards.described("digits")
    assert [gallery.draw(about) for _ in range(3)] == [True, False, True]
    assert (tmp_path / "digits.png").read_bytes() == b"two"


def test_a_command_without_its_module_is_refused(capsys):
    with pytest.raises(SystemExit):
        gallery.main(["--only", "classifier"])
    assert "invalid choice: 'classifier'" in capsys.readouterr().err
