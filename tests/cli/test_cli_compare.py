"""The command compare: its picture, its points, and what it refuses before anything runs."""

import csv
import json
import sys
import types

import numpy as np
import pytest
import torch
from command import run
from PIL import Image

from diffusion_engine import Sampler
from diffusion_engine.cli import compare as command
from diffusion_engine.cli.options import solver_of
from diffusion_engine.compare import Fine, distances, fine_solution
from diffusion_engine.compare.picture import Sheet
from diffusion_engine.compare.runs import thinned
from diffusion_engine.solvers import solver
from diffusion_engine.testing import labelled_mixture

FEW = ("--fine-steps", 20, "--n", 2, "--steps", "2,4")


@pytest.fixture
def model(monkeypatch):
    made = types.ModuleType("small_networks_here")
    made.images = labelled_mixture(shape=(1, 4, 4))
    made.vectors = labelled_mixture(shape=(3,))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made.__name__


def test_points(capsys, tmp_path, model):
    out, table = tmp_path / "a.png", tmp_path / "a.csv"
    text, _ = run(
        capsys, "compare", "--model", f"{model}:images", "--solvers",
        "ddim,dpmpp_2m:variant=heun,heun,euler_ancestral", *FEW, "--out", out, "--csv", table,
    )  # fmt: skip
    assert text.startswith("rms from the fine solution, dpmpp_3m in 20 steps, over 2 samples\n")
    rows = list(csv.DictReader(table.open()))
    assert [r["solver"] for r in rows[::2]] == [
        "ddim", "dpmpp_2m:variant=heun", "heun", "euler_ancestral",
    ]  # fmt: skip
    assert [r["calls"] for r in rows] == ["2", "4", "2", "4", "3", "7", "2", "4"]
    assert [r["evaluations"] for r in rows[:2]] == ["8", "16"]  # two samples of two branches
    network = sys.modules[model].images
    how = {"guidance": 2.0}
    fine = fine_solution(network, [0, 1], [0, 1], fine=Fine.of(network, 20), **how)
    own = Sampler(network, "dpmpp_2m", 4, variant="heun", **how).sample(condition=[0, 1], seed=0)
    by_seed = distances(own.samples, fine)
    assert [float(rows[3][f"seed_{s}"]) for s in (0, 1)] == pytest.approx(by_seed.tolist())
    assert float(rows[3]["rms"]) == pytest.approx(float(by_seed.square().mean().sqrt()))
    assert (rows[6]["rms"], rows[6]["seed_0"], rows[6]["why_none"]) == ("", "", "draws noise")
    assert float(rows[1]["rms"]) < float(rows[0]["rms"])


def test_the_picture(capsys, tmp_path, model):
    """The samples stand in it as they are, each in its cell, and no letters in them."""
    out = tmp_path / "a.png"
    run(
        capsys,
        "compare",
        "--model",
        f"{model}:images",
        "--solvers",
        "ddim,heun",
        *FEW,
        "--out",
        out,
    )
    image = np.asarray(Image.open(out).convert("RGB"))
    network, sheet = sys.modules[model].images, Sheet((1, 4, 4), 2)
    found = 0
    for name, steps in (("ddim", 2), ("ddim", 4), ("heun", 2), ("heun", 4)):
        made = Sampler(network, name, steps, guidance=2.0).sample(condition=[0, 1], seed=0)
        block = np.asarray(sheet.images(made.samples))
        found += places(image, block) >= 1
    assert found == 4
    assert list(tmp_path.iterdir()) == [out]


def places(image, block):
    """How often a block stands in an image."""
    height, width = block.shape[:2]
    fits = np.ones((image.shape[0] - height + 1, image.shape[1] - width + 1), bool)
    for y, x in (
        (0, 0),
        (height - 1, width - 1),
        (height // 3, width // 4),
        (height // 2, width - 5),
    ):
        fits &= (image[y : y + len(fits), x : x + fits.shape[1]] == block[y, x]).all(axis=2)
    rows, columns = np.nonzero(fits)
    return sum(
        np.array_equal(image[y : y + height, x : x + width], block)
        for y, x in zip(rows, columns, strict=True)
    )


def test_by_calls_and_as_json(capsys, model):
    text, _ = run(
        capsys, "compare", "--model", f"{model}:vectors", "--solvers", "ddim,heun", "--by", "calls",
        "--steps", "1,6", "--seeds", "5,9", "--fine-steps", 10, "--json",
    )  # fmt: skip
    about = json.loads(text)
    assert about["fine"] == "dpmpp_3m in 10 steps"
    made = [(r["solver"], r["steps"], r["calls"]) for r in about["runs"]]
    assert made == [("ddim", 1, 1), ("ddim", 6, 6), ("heun", 1, 1), ("heun", 3, 5)]
    assert all(r["seed_9"] >= 0.0 for r in about["runs"])


def test_counts():
    assert thinned(5, 50) == (5, 7, 10, 13, 19, 26, 36, 50)
    assert thinned(3, 6) == (3, 4, 5, 6)
    assert command.counts_of("5-50") == thinned(5, 50)
    assert command.counts_of("4,20,4") == (4, 20)
    rules = command.rules_of("ddim, deis:max_order=2:variant=rhoab")
    assert rules == {
        "ddim": solver("ddim"),
        "deis:max_order=2:variant=rhoab": solver("deis", max_order=2, variant="rhoab"),
    }


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--solvers", "ddim,ddin"), "unknown solver 'ddin'"),
        (("--solvers", "ddim:eta=2"), "DDIM's eta lies between 0 and 1"),
        (("--solvers", "ddim:gamma=2"), "has no option gamma"),
        (("--solvers", "ddim,,heun"), "write names with commas between them"),
        (("--solvers", "ddim,ddim"), "names ddim twice"),
        (("--solvers", "sscs"), "it moves [x, v]"),
        (("--steps", "0-5"), "counts are 1 or more"),
        (("--steps", "five"), "is no list of numbers"),
        (("--by", "time"), "by='time'"),
        (("--n", "0"), "at least 1 sample"),
        (("--n", "3", "--seeds", "1,2"), "leave one of them out"),
        (("--n", "17", "--out", "a.png"), "a picture has 16 at most"),
        (("--out", "a.jpg"), "choose a name ending in .png"),
        (("--csv", "no/a.csv"), "the folder no does not exist"),
        (("--fine-steps", "0"), "steps of the fine solution, 1 or more"),
        (("--grid", "karas"), "unknown grid 'karas'"),
        (("--guider-option", "phi=1"), "goes with --guider"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_runs(
    capsys, tmp_path, monkeypatch, model, words, why
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Sampler, "sample", None)
    _, err = run(capsys, "compare", "--model", f"{model}:images", "--steps", "2", *words, code=2)
    assert why in err and not list(tmp_path.iterdir())


def test_vectors_have_points_alone(capsys, tmp_path, model):
    words = ("compare", "--model", f"{model}:vectors", "--out", tmp_path / "a.png")
    _, err = run(capsys, *words, code=2)
    assert "has the shape [3]; leave it out, and give --csv" in err


def test_cfg_pp_follows_no_ode(capsys, model):
    words = ("--solvers", "ddim:cfg_pp=true,ddim", "--guidance", 0.5, *FEW, "--json")
    made = json.loads(run(capsys, "compare", "--model", f"{model}:vectors", *words)[0])["runs"]
    assert [r["why_none"] for r in made] == ["no ODE", "no ODE", "", ""]


def test_the_best_of_a_column_is_green(model):
    from diffusion_engine.compare.picture import BEST, picture
    from diffusion_engine.compare.runs import prepared

    network = sys.modules[model].images
    ready = prepared(
        network, {"ddim": solver("ddim"), "dpmpp_2m": solver("dpmpp_2m")}, [16], fine_steps=40
    )
    made = ready.run([0, 1])
    assert made.cells[1][0].distance < made.cells[0][0].distance
    image = np.asarray(picture(made, "it"))
    green = np.argwhere((image == [int(BEST[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=2))
    assert len(green) and green[:, 0].min() > image.shape[0] // 2  # below the second row's images
    assert torch.equal(made.cells[0][0].samples, Sampler(network, "ddim", 16).sample(2).samples)


def test_options_are_written_as_in_json_or_as_in_python(tmp_path):
    for value in ("false", "False"):
        assert solver_of("dpmpp_2m", [f"lower_order_final={value}"]).lower_order_final is False
    midpoint = {"c": [0, 0.5], "a": [[], [[[0.5, 1]]]], "b": [0, [[1, 1]]]}
    file = tmp_path / "midpoint.json"
    file.write_text(json.dumps(midpoint))
    given = solver_of("exp_rk", [f"tableau={file}"])
    assert given == solver_of("exp_rk", [f"tableau={json.dumps(midpoint)}"])
    assert list(command.rules_of(f"exp_rk:tableau={file}").values()) == [given]
    with pytest.raises(ValueError, match=r"choose res_2s, .* or give your own: a tableau is"):
        solver_of("exp_rk", ["tableau=mine"])
    with pytest.raises(ValueError, match=r"absent\.json"):
        solver_of("exp_rk", [f"tableau={tmp_path}/absent.json"])
