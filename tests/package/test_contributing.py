"""The code of README.md and CONTRIBUTING.md runs as it stands, and what the pages name is there."""

import ast
import importlib
import math
import re
import textwrap
import types
from pathlib import Path

import oracle_checks
import pytest
import solver_checks
import torch
from oracles import golden
from oracles import solvers as oracles

import diffusion_engine
from diffusion_engine import SOLVERS, Sampler

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def written(page, marker, language="python"):
    """The code of a page after a marker."""
    text = (ROOT / page).read_text()
    found = re.search(rf"{marker}\s*```{language}\n(.*?)```", text, re.DOTALL)
    assert found, f"{page} has no {language} block after {marker}"
    return textwrap.dedent(found[1])


def module(name, code):
    """A module of the code of a page, in place of a file of its package."""
    made = types.ModuleType(name)
    made.__package__ = name.rpartition(".")[0]
    exec(compile(code, name, "exec"), vars(made))
    return made


def test_the_solver_of_the_readme_runs_as_it_stands():
    code = written("README.md", "<!-- own solver -->")
    assert len(code.strip().splitlines()) <= 14
    made = module("readme", code)
    assert torch.equal(made.again.samples, made.result.samples)
    assert made.result.finite == [True] * 4


def test_the_use_of_the_readme_runs_as_it_stands():
    """On a trained module and images that the reader brings; 4 samples stand for its 50,000."""
    code = written("README.md", "<!-- use -->").replace("50_000", "4")
    made = types.ModuleType("use")
    made.module = lambda x, label, condition: 0.5 * x
    made.images, made.mask = torch.zeros(4, 3, 32, 32), torch.ones(3, 32, 32)
    exec(compile(code, "README.md", "exec"), vars(made))
    assert made.result.samples.shape == (64, 3, 32, 32)
    assert made.latents.shape == (4, 3, 32, 32)
    assert len(made.part.samples) == 4


def test_the_batch_of_the_readme_runs_as_it_stands():
    """Who joined late and whose outputs were made outside have the bits of running alone."""
    made = module("readme", written("README.md", "<!-- batch -->"))
    solvers = zip(("dpmpp_2m_sde", "unipc"), (3, 4), strict=True)
    alone = [Sampler(made.network, name, 8).sample(seeds=[seed]).samples for name, seed in solvers]
    assert torch.equal(made.samples, torch.cat(alone))
    assert torch.equal(made.own.read([0]), made.samples[:1])
    assert made.ended == [made.seats[1]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_the_pages_import_is_there(page):
    for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(textwrap.dedent(code))):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                found = importlib.import_module(node.module)
                assert [a.name for a in node.names if not hasattr(found, a.name)] == []


def test_what_the_package_exports_is_there():
    listed = diffusion_engine.__all__
    assert len(set(listed)) == len(listed)
    assert [name for name in listed if not hasattr(diffusion_engine, name)] == []


def test_the_solver_of_contributing_is_what_a_shipped_one_is(monkeypatch):
    own = module(
        "diffusion_engine.solvers.midpoint", written("CONTRIBUTING.md", "<!-- midpoint -->")
    )
    loop = module("oracles.midpoint", written("CONTRIBUTING.md", "<!-- midpoint oracle -->"))
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


def test_contributing_sets_up_as_the_readme_does():
    (command,) = written("README.md", "<!-- test -->", "bash").splitlines()
    commands = written("CONTRIBUTING.md", "## Set up", "bash").splitlines()
    commands = [line.partition("#")[0].strip() for line in commands]
    for part in command.split(" && "):
        assert part in commands


def test_the_files_that_contributing_names_are_there():
    """But for ends of names and the files of its example."""
    pages = re.findall(r"`([a-z_/0-9]+\.[a-z]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    named = {name for name in pages if not name.startswith("_")} - {
        "diffusion_engine/solvers/midpoint.py"
    }
    assert len(named) > 20
    folders = [ROOT / name for name in ("", "diffusion_engine", "csrc/cpu", "csrc/cuda")]
    folders += [path for path in (ROOT / "tests").glob("**") if path.is_dir()]
    assert [n for n in named if not any((folder / n).is_file() for folder in folders)] == []
