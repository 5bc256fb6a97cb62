"""The command eval: rows, what it does not make again, and what it refuses before anything runs."""

import csv
import json
import sys
import types

import pytest
from command import run
from optional import needs

from diffusion_engine.testing import labelled_mixture


@pytest.fixture(autouse=True)
def model(monkeypatch):
    made = types.ModuleType("small_networks_here")
    made.images = labelled_mixture(shape=(1, 32, 32))
    made.vectors = labelled_mixture(shape=(3,))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    needs("torchmetrics")
    return f"{made.__name__}:images"


def test_rows(capsys, tmp_path, model):
    out = tmp_path / "rows.csv"
    asked = ("eval", "--model", model, "--solver", "ddim,sscs", "--n", 70, "--executor", "eager")
    text, said = run(capsys, *asked, "--steps", 1, "--out", out)
    assert "with sscs is left out" in said and "1 rows, some 0." in said
    assert text.count("\n") == 1 and "ddim  1 steps  1 calls  seeds 0+70: Frechet " in text
    first = out.read_text()
    text, said = run(capsys, *asked, "--steps", "1,2", "--out", out, "--json")
    assert "1 rows" in said
    rows = json.loads(text)["rows"]
    assert [(row["steps"], row["guidance"]) for row in rows] == [(1, 2), (2, 2)]
    assert out.read_text().startswith(first) and len(list(csv.DictReader(out.open()))) == 2


@pytest.mark.parametrize(
    "words, message",
    [
        (("--model", "nobody"), "network 'nobody' does not ship with the package"),
        (("--model", "small_networks_here:vectors"), "only digits of [1, 32, 32] are evaluated"),
        (("--solver", "sscs"), "with sscs is left out"),
        (("--n", 1), "n=1: a covariance takes some thousands of samples"),
        (("--n", 60, "--steps", 1), "60 samples have no covariance of 64 features"),
        (("--repeats", 0), "--repeats 0: make 1 row or more"),
        (("--out", "rows.txt"), "choose a name ending in .csv"),
        (("--by", "times"), "by='times'"),
        (("--steps", 0), "counts are 1 or more"),
    ],
)
def test_what_is_refused(capsys, model, words, message):
    _, said = run(capsys, "eval", "--model", model, "--executor", "eager", *words, code=2)
    assert message in said
