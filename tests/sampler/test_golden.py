"""Samples of earlier versions, kept in tests/golden: this one makes the same, and replays their recipes."""

import json
import runpy
import sys

import numpy as np
import pytest
import torch
from golden_runs import GOLDEN, PICTURES, RECIPES, RUNS, SAMPLES, bits
from PIL import Image
from safetensors.torch import load_file

from diffusion_engine import SOLVERS, Sampler

KEPT = load_file(SAMPLES)
WRITTEN = json.loads(RECIPES.read_text(encoding="utf-8"))


def same(made, name):
    """Whether a result has the bits that are kept."""
    kept = KEPT[name]
    assert (made.samples.dtype, made.samples.shape) == (kept.dtype, kept.shape)
    assert all(made.finite) and kept.isfinite().all()
    return torch.equal(bits(made.samples), bits(kept))


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("name", RUNS)
def test_the_bits_are_those_that_are_kept(name, backend):
    assert same(RUNS[name].made(backend), name)


@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_that_is_kept_makes_its_samples(name):
    """On a network that is given again, in batches of two."""
    run, recipe = RUNS[name], WRITTEN[name]
    how = {"backend": "cpp", "batch_size": 2}
    made = Sampler.replay(run.network(), recipe, how=how, **run.given(recipe["needs"]))
    assert same(made, name)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_has_a_run(name):
    assert name in {run.options["solver"] for run in RUNS.values()}, (
        f'add "{name}": run(network, "{name}", 5) to RUNS of tests/helpers/golden_runs.py, then: '
        f"PYTHONPATH=.:tests/helpers python tests/golden/make.py {name}"
    )


def test_every_run_is_kept():
    assert KEPT.keys() == WRITTEN.keys() == RUNS.keys()
    assert len({tuple(bits(t).flatten().tolist()) for t in KEPT.values()}) == len(RUNS)


def test_one_run_made_anew_leaves_the_others(tmp_path, monkeypatch):
    """Byte for byte, so that a new solver's samples are all that a commit shows."""
    make = runpy.run_path(str(GOLDEN / "make.py"))["main"]
    for constant, path in {"SAMPLES": SAMPLES, "RECIPES": RECIPES}.items():
        monkeypatch.setitem(make.__globals__, constant, tmp_path / path.name)
        (tmp_path / path.name).write_bytes(path.read_bytes())
    make(["euler"])
    assert (tmp_path / SAMPLES.name).read_bytes() == SAMPLES.read_bytes()
    old, new = (path.read_text().splitlines() for path in (RECIPES, tmp_path / RECIPES.name))
    assert {line.partition(":")[0] for line in set(new) ^ set(old)} <= {'"euler"'}
    assert len(new) == len(old)


def levels(path):
    with Image.open(path) as picture:
        return np.asarray(picture).astype(int)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_draws_itself_again(name, tmp_path, monkeypatch):
    """Within one level of 255: torch's convolutions differ between processors."""
    again = tmp_path / name
    argv = ["diffusion-engine", "sample", f"--out={again}", f"--recipe={GOLDEN / name}"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("diffusion_engine.cli", run_name="__main__")
    assert not stop.value.code
    kept, made = levels(GOLDEN / name), levels(again)
    assert kept.shape == made.shape and kept.std() > 30  # digits, no flat sheet
    assert abs(kept - made).max() <= 1
