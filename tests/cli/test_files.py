"""Files and options that users name: taken or refused before the work, and never half a file."""

import json
import os

import numpy as np
import pytest
from command import run
from picture_files import stored
from PIL import Image

from diffusion_engine import Sampler
from diffusion_engine.cli import files
from diffusion_engine.testing import exact_network


def test_commands_take_such_files(capsys, tmp_path):
    grey = tmp_path / "x.png"
    Image.fromarray(np.full((32, 32), 40000, np.uint16)).save(grey)
    few = ("--start", 0.01, "--steps", 1, "--n", 1, "--class", "none", "--solver", "ddim")
    run(capsys, "sample", "--x", grey, "--out", tmp_path / "y.NPZ", *few)
    found = np.load(tmp_path / "y.NPZ")["samples"]
    assert abs(found.mean() - (40000 / 32767.5 - 1)) < 0.1
    (tmp_path / "cut.npz").write_bytes((tmp_path / "y.NPZ").read_bytes()[:-99])
    for command in ("sample", "encode"):
        given = (
            ("--x", tmp_path / "cut.npz", *few) if command == "sample" else (tmp_path / "cut.npz",)
        )
        _, err = run(capsys, command, *given, "--out", tmp_path / "z.npz", code=2)
        assert "holds no image" in err and err.count("\n") == 1


# ---------------------------------------------------------------- names that are written


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    before = os.umask(0o027)
    try:
        files.atomically(tmp_path / "x", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("command", ["sample", "encode", "profile", "plan"])
def test_names_are_checked_before_the_work(capsys, tmp_path, monkeypatch, command):
    def never(*arguments, **more):
        raise AssertionError("sampled first")

    monkeypatch.setattr(Sampler, "sample", never)
    source = stored(tmp_path / "x.npz", {"samples": np.zeros((1, 1, 32, 32), np.float32)})
    given = {"encode": ("encode", source, "--steps", 2), "profile": ("profile",)}
    given = given.get(command, ("sample", "--out", tmp_path / "fine.npz"))
    flag = "--save-plan" if command == "plan" else "--out"
    for name in ("no/x.npz", "/proc/x.npz", "x" * 300 + ".npz"):
        _, err = run(capsys, *given, flag, tmp_path / name, code=2)
        assert ("does not exist" in err) == name.startswith("no/") and err.count("\n") == 1
        assert "does not exist" in err or "cannot be written" in err
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_samples_that_are_no_picture_are_found_out_first(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Sampler, "sample", None)
    _, err = run(capsys, "sample", "--out", tmp_path / "x.png", "--model", "exact", code=2)
    assert "a PNG shows images; a sample has shape [1]" in err


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--solver", "ddim", "--option", "eta=abc"), "eta='abc': give a finite number"),
        (("--solver", "ddim", "--option", "eta=true"), "eta=True: give a finite number"),
        (("--solver", "ddim", "--option", "eta=NaN"), "eta=nan: give a finite number"),
        (("--solver", "ddim", "--option", "clipped_eps=1"), "clipped_eps=1: give True or False"),
        (("--solver", "ddim", "--option", "eta=0", "--option", "eta=1"), "eta is given twice"),
        (("--solver", "unipc", "--option", "max_order=2.5"), "max_order=2.5: give an integer"),
        (("--solver", "unipc", "--option", "variant=1"), "variant=1: it is a name"),
        (("--option", "clip=[-1, 1]"), "has no option clip"),
        (("--option", "=1"), "has no option"),
        (("--solver", "ddim", "--option", "eta=" + "[" * 50000), "give a finite number"),
        (("--seeds", ""), "no list of numbers"),
        (("--seeds", "1,,2"), "no list of numbers"),
        (("--seeds", "0-2000000"), "more than 1000000 numbers"),
        (("--seeds", "0-999999,5"), "more than 1000000 numbers"),
        (("--seeds", "9" * 5000), "no list of numbers"),
        (("--n", 10**12), "at most 1000000"),
        (("--model", "exact", "--class", "3"), "has no classes"),
        (("--model", "exact", "--guidance", "3"), "guidance"),
        (("--class", "none", "--guidance", "3"), "guidance needs a condition"),
    ],
)
def test_what_is_asked_is_taken_or_refused(capsys, tmp_path, arguments, message):
    _, err = run(capsys, "sample", "--out", tmp_path / "x.npz", *arguments, code=2)
    assert message in err and err.count("\n") == 1 and list(tmp_path.iterdir()) == []


def test_blanks_in_lists_and_plain_values_in_recipes(capsys, tmp_path):
    few = ("--model", "exact", "--solver", "heun", "--steps", 2, "--out", tmp_path / "x.npz")
    given = ("--seeds", " 0 - 2, 9", "--option", "s_churn=1", "--json")
    about = json.loads(run(capsys, "sample", *few, *given)[0])
    assert about["recipe"]["seeds"] == [0, 1, 2, 9]
    sampler = Sampler(exact_network("heun"), "heun", 2, s_churn=np.float32(0.5))
    assert type(sampler.recipe()["solver"]["options"]["s_churn"]) is float


def test_a_model_of_the_users_own_that_fails(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing_model.py").write_text("def net(): raise RuntimeError('no weights here')\n")
    few = ("--model", "failing_model:net", "--out", "x.npz")
    _, err = run(capsys, "sample", *few, code=2)
    assert "RuntimeError: no weights here" in err and err.count("\n") == 1
