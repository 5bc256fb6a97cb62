"""docs/samplers.md says what the solvers say."""

import sys

import pytest

from benchmarks.pages import samplers
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
