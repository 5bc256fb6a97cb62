"""docs/editing/ is what the commands of its page draw, each picture with its recipe."""

import shlex
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.pages import editing
from benchmarks.pages.blocks import editing as block
from diffusion_engine.cli import files

LARGEST = 40_000  # bytes
STEPS = {step.out: step for steps in block.SECTIONS.values() for step in steps}
DRAWN = [out for out, step in STEPS.items() if step.shows]


def test_the_page_has_a_picture_of_every_command():
    there = {path.name: path.stat().st_size for path in block.PICTURES.iterdir()}
    assert sorted(there) == sorted([*DRAWN, "mask.png"]) and max(there.values()) <= LARGEST


@pytest.mark.parametrize("out", DRAWN)
def test_a_picture_is_of_its_command(out):
    recipe = files.read_recipe(block.PICTURES / out)
    parts = STEPS[out].command
    told = {option: [part[-1] for part in parts if part[0] == option] for option, *_ in parts[1:]}
    assert [recipe["network"]] == told["--model"] == [block.MODEL]
    assert recipe["needs"] == (
        ["mask", "known"] if "--known" in told else ["x"] if "--x" in told else []
    )
    n, composed = len(recipe["seeds"]), [each.rpartition("=") for each in told.get("--compose", [])]
    assert (recipe["compose"] or [[]])[0] == [prompt for prompt, _, _ in composed]
    if composed:
        assert recipe["guidance"] == [[float(weight) for _, _, weight in composed]] * n
        assert len(recipe["points"]) == int(*told["--steps"]) + 1
    else:
        assert recipe["condition"] == told["--prompt"] * n
    assert (recipe["negative"] or [])[:1] == told.get("--negative-prompt", [])
    assert (recipe["driver"] is None) == ("--driver" not in told)


def test_the_mask_is_that_of_the_page():
    with Image.open(block.PICTURES / "mask.png") as image:
        assert image.tobytes() == editing.mask().tobytes()
        assert image.size == (block.SIDE,) * 2 and not any(edge % 4 for edge in block.MASK)
    assert f'mask.paste("white", {block.MASK})' in editing.PAGE.read_text()


def test_a_command_is_read_as_it_was():
    step = block.Step("x.png", "x", ("sample", "--x", "it's.npz", "--noised", "--compose", "a=1"))
    assert step.command[2:] == [
        ("--x", "it's.npz"), ("--noised",), ("--compose", "a=1"), ("--out", "x.png"),
    ]  # fmt: skip
    for step in STEPS.values():
        text = block.folded(step.command)
        words = [word for part in step.command for word in part]
        assert shlex.split(text.replace("\\\n", "")) == words


def test_a_command_has_its_source_and_a_picture_is_kept_where_it_is_the_same(monkeypatch, tmp_path):
    ran, pictures, folder = [], tmp_path / "pictures", tmp_path / "folder"
    pictures.mkdir()
    folder.mkdir()
    for name in editing.GIVEN:
        (pictures / name).write_bytes(b"given")

    def runs(called, cwd, **how):
        ran.append((called[3:], sorted(path.name for path in Path(cwd).iterdir())))
        (folder / "new.png").write_bytes(b"drawn")

    monkeypatch.setattr(editing, "PICTURES", pictures)
    monkeypatch.setattr(editing.subprocess, "run", runs)
    monkeypatch.setattr(editing, "shown", Path.read_bytes)
    step = block.Step("new.png", "new", ("sample", "--n", "1"))
    assert [editing.draw(step, folder) for _ in range(2)] == [True, False]
    assert (pictures / "new.png").read_bytes() == b"drawn"
    assert ran[0] == (
        ["sample", "--model", "emoji", "--n", "1", "--out", "new.png"],
        [*editing.GIVEN],
    )
