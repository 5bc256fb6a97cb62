"""docs/samplers.md says what the solvers say."""

import importlib
import sys
from pathlib import Path

from diffusion_engine import SOLVERS

sys.path.append(str(Path(__file__).parents[1]))
samplers = importlib.import_module("benchmarks.samplers")


def test_the_page_is_that_of_the_solvers():
    page = samplers.page()
    assert samplers.PAGE.read_text() == page, "run python -m benchmarks.samplers"
    assert all(f"| `{name}` |" in page for name in SOLVERS)


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
