"""What CONTRIBUTING.md adds to the package is what a shipped part is. Its pages run in test_pages.py."""

import math
import types
from pathlib import Path

import oracle_checks
import pytest
import solver_checks
from oracles import golden
from oracles import solvers as oracles
from pages import shell
from pages.blocks import Page

from diffusion_engine import SOLVERS

ROOT = Path(__file__).parents[2]
CONTRIBUTING, README = (Page.at(ROOT / name) for name in ("CONTRIBUTING.md", "README.md"))


def module(name, marker):
    """A module of the code after a marker, in place of a file of its package."""
    (code,) = (block.code for block in CONTRIBUTING.blocks if block.marker == marker)
    made = types.ModuleType(name)
    made.__package__ = name.rpartition(".")[0]
    exec(compile(code, name, "exec"), vars(made))
    return made


def test_the_solver_of_contributing_is_what_a_shipped_one_is(monkeypatch):
    own = module("diffusion_engine.solvers.midpoint", "midpoint")
    loop = module("oracles.midpoint", "midpoint oracle")
    monkeypatch.setitem(SOLVERS, "midpoint", own.Midpoint)
    monkeypatch.setattr(oracles, "MODULES", [*oracles.MODULES, loop])
    for schedule in ("vp", "edm", "flow", "ddpm"):
        for n in (1, 7):
            solver_checks.equals_oracle("midpoint", {}, schedule, n)
        solver_checks.keeps_its_level("midpoint", {}, schedule)
    oracle_checks.samples_a_point_mass_exactly("midpoint", {})
    solver_checks.says_whether_it_draws("midpoint")
    assert SOLVERS["midpoint"]().name == "midpoint"
    ends = [oracle_checks.tm_end("midpoint", {}, "lam", n, 0.7) for n in (40, 80)]
    errors = [abs(end - golden.EXACT_END[0.7]) for end in ends]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(own.Midpoint.order, abs=0.3)


def commands(page, marker=None):
    """The commands of a page, or of its block after a marker."""
    blocks = [b for b in page.blocks if b.language == "bash" and marker in (None, b.marker)]
    return [command.words for block in blocks for command in shell.commands(block.code)]


def test_contributing_sets_up_as_the_readme_does():
    """And as .ci/run does, which takes its command from there."""
    tested = commands(README, "test")
    assert len(tested) == 2
    assert [words for words in tested if words not in commands(CONTRIBUTING)] == []
