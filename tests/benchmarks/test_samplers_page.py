"""docs/samplers.md says what the solvers say."""

import sys

import numpy as np
import pytest

from benchmarks.pages import curves, samplers
from benchmarks.runs import encoding
from diffusion_engine import SOLVERS


def test_the_page_is_that_of_the_solvers():
    page = samplers.page()
    assert samplers.PAGE.read_text() == page, "run: python -m benchmarks.pages.samplers"
    assert all(f"| `{name}` |" in page for name in SOLVERS)


def test_the_page_is_written_without_matplotlib(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(samplers, "PAGE", tmp_path / "samplers.md")
    monkeypatch.setattr(samplers, "curve", lambda name: pytest.fail("curves take minutes"))
    samplers.main([])
    assert samplers.PAGE.read_text() == samplers.page()
    assert "samplers.png is as it was: --curves draws it" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--curves needs matplotlib: pip install matplotlib"):
        samplers.main(["--curves"])


@pytest.mark.parametrize("way", [("ddim", 3), ("dpmpp_2m", 0)])
def test_round_trips_are_what_the_page_says(way):
    found = f"{encoding.error(encoding.mixture, *way, encoding.STEPS[0]):.1e}"
    (line,) = (
        line for line in samplers.PAGE.read_text().splitlines()
        if line.startswith(f"| `{way[0]}` |") and line.split("|")[3].strip() == str(way[1])
    )  # fmt: skip
    assert line.split("|")[5].strip() == found


def test_every_solver_has_its_place_in_the_picture():
    known = {name: [(6, 0.1 + 0.001 * i), (48, 0.01)] for i, name in enumerate(SOLVERS)}
    halves = [curves.panels_of(known, noisy) for noisy in (False, True)]
    shown = [n for panels in halves for own in panels.values() for names in own for n in names]
    assert sorted(shown) == sorted(SOLVERS)
    assert all(len(own) <= 1 + len(curves.SHADES) for panels in halves for own in panels.values())
    same = curves.panels_of(known | {"ddim": known["euler"]}, False)
    assert ("euler", "ddim") in same["Euler, Heun, DDIM"]


@pytest.mark.parametrize("places", [[0.5] * 7, [1.0, 0.98, 0.3, 0.29, 0.0], [0.2]])
def test_names_do_not_lie_on_each_other(places):
    found = np.array(curves.apart(places, 0.12))
    assert (found[:-1] - found[1:] > 0.119).all() and found.max() < 1.1 and found.min() > -0.1
    assert np.abs(found - places).max() < 0.12 * len(places)


def test_errors_fall_with_calls():
    errors = [error for _, error in curve("unipc")]
    assert errors[-1] < 0.5 * errors[0]


def curve(name, calls=(8, 32)):
    """On few elements, against a reference of few steps."""
    small = {"CALLS": calls, "ELEMENTS": 512, "STARTS": 16, "FINE": 60}
    old = {key: getattr(samplers, key) for key in small}
    vars(samplers).update(small)
    try:
        return samplers.curve(name)
    finally:
        vars(samplers).update(old)
