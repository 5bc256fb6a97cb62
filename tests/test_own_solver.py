"""Solvers that users write: an object with `updates` alone does all that a shipped solver does."""

import copy
import json
import math
import pickle
import re
import textwrap
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import test_oracles
import test_solvers
import torch
from oracles import golden
from oracles import solvers as oracles
from tape import TapeRecorder, taped

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork, cli, profile
from diffusion_engine.executors import Graph, graph
from diffusion_engine.genie import exact_derivative
from diffusion_engine.processes import VP
from diffusion_engine.solvers import (
    Solver,
    Update,
    denoised,
    eps_of,
    normal,
    raw,
    slot,
    solver,
    steps,
    transfer,
    x,
)
from diffusion_engine.testing import exact_network, labelled_mixture

ROOT = Path(__file__).parents[1]
NETWORK = ScoreNetwork(
    lambda x, t, y: 0.3 * x - 0.05 * y[:, None], VP(), (2,), null=3, classes=3, prediction="eps"
)  # fmt: skip


class Plain:
    """Euler's method, as "euler" has it."""

    def updates(self, process, points):
        for s, t in steps(points):
            yield Update(s, {0: transfer(s, t, x, denoised)}, t)


class Midpoint:
    """As "dpm_2"; a list in place of a generator."""

    def updates(self, process, points):
        made = []
        for s, t in steps(points):
            if 0.0 in (s.alpha, t.sigma):
                made.append(Update(s, {0: transfer(s, t, x, denoised)}, t))
                continue
            u = process.at_lam(0.5 * (s.lam + t.lam))
            slope = (slot(1) / u.alpha - denoised) / u.ratio
            end = t.alpha * (x / s.alpha + (t.ratio - s.ratio) * slope)
            made.append(Update(s, {1: transfer(s, u, x, denoised)}, None))
            made.append(Update(u, {0: end}, t, read=(1,)))
        return made


class Noisy:
    """As "ddpm"."""

    def updates(self, process, points):
        for s, t in steps(points):
            c = t.sigma * math.sqrt(-math.expm1(2.0 * (s.lam - t.lam))) if t.sigma else 0.0
            mean = t.alpha * denoised + math.sqrt(t.sigma**2 - c**2) * eps_of(s)
            yield Update(s, {0: mean + c * normal(0)}, t)


@dataclass(frozen=True)
class Scaled(Solver):
    """A subclass with options, one of which JSON does not hold; it keeps x0 to first order."""

    factor: float = 1.0
    top: float = math.inf
    weights: tuple[float, ...] = (1.0, 2.0)
    rule: object = field(default_factory=object)
    exact = False

    def updates(self, process, points):
        for s, t in steps(points):
            yield Update(s, {0: transfer(s, t, self.factor * x, denoised)}, t)


class Kin(SOLVERS["heun"]):
    """A subclass of a shipped solver that says no name."""

    def updates(self, process, points):
        return Plain().updates(process, points)


def rows(rule, **how):
    """Of all kinds of plans."""
    sampler = Sampler(NETWORK, rule, 4, **how)
    kinds = [{}, {"guidance": 2.0}, {"masked": True}, {"kind": "image", "start": 0.5}]
    return [sampler.plan(**kind).rows for kind in kinds + [{"refine": 0}] * (rule != "ddpm")]


@pytest.mark.parametrize("own, shipped", [(Plain, "euler"), (Midpoint, "dpm_2")])
def test_updates_are_enough(own, shipped):
    assert rows(own()) == rows(shipped)
    sampler = Sampler(NETWORK, own(), 4)
    assert str(sampler.plan()).startswith(f"{own.__name__}: ")
    seen = []
    made = sampler.sample(3, condition=[0, 1, 2], guidance=1.5, on_step=seen.append)
    same = Sampler(NETWORK, shipped, 4).sample(3, condition=[0, 1, 2], guidance=1.5)
    assert torch.equal(made.samples, same.samples) and len(seen) == 4 and made.nfe == same.nfe
    inpainted = {"mask": torch.tensor([1.0, 0.0]), "known": torch.ones(2), "condition": 0}
    made, same = (Sampler(NETWORK, s, 4).sample(2, **inpainted) for s in (own(), shipped))
    assert torch.equal(made.samples, same.samples)
    latents = Sampler(exact_network(own()), own(), 40, end="t_min").encode(torch.ones(1, 1))
    assert latents.finite == [True] and latents.recipe["solver"]["name"] == own.__name__


def test_fixed_points_invert_an_own_solver():
    for refine in (1, 3):
        plans = [Sampler(NETWORK, s, 4).plan(refine=refine) for s in (Plain(), "euler")]
        assert plans[0].rows == plans[1].rows


def test_an_own_solver_in_graphs_and_on_a_path(monkeypatch):
    monkeypatch.setattr(graph, "resolve", taped(graph.resolve))
    network = ScoreNetwork(lambda x, t: 0.3 * x.abs(), VP(), (2,))
    for own, noise in ((Plain(), None), (Noisy(), None), (Noisy(), "brownian")):
        how = [{}, {"executor": Graph(recorder=TapeRecorder())}]
        eager, captured = (
            Sampler(network, own, 4, **options).sample(3, noise=noise) for options in how
        )
        assert torch.equal(eager.samples, captured.samples)
    shipped = Sampler(network, "ddpm", 4).sample(3, noise="brownian").samples
    assert torch.allclose(captured.samples, shipped, rtol=0, atol=1e-6)


def test_a_plain_objects_slope():
    class Taylor:
        """As "genie"."""

        def updates(self, process, points):
            for s, t in steps(points):
                if t.sigma == 0.0:
                    yield Update(s, {0: transfer(s, t, x, denoised)}, t)
                    continue
                half = 0.5 * t.alpha * (t.ratio - s.ratio) ** 2
                yield Update(s, {0: transfer(s, t, x, denoised) + half * raw}, t, slope=True)

    network = exact_derivative(labelled_mixture())
    plans = [Sampler(network, s, 5).plan() for s in (Taylor(), "genie")]
    assert plans[0].rows == plans[1].rows
    assert Sampler(exact_network(Taylor()), Taylor(), 5).sample(2).finite == [True, True]
    with pytest.raises(ValueError, match="does not offer d eps / dg"):
        Sampler(NETWORK, Taylor(), 5)


def test_an_own_solver_is_profiled_copied_and_pickled():
    found = profile(Sampler(exact_network(Plain()), Plain(), 3), 2, runs=1)
    assert found.recipe["solver"] == {"name": "Plain", "options": {}}
    given = Sampler(NETWORK, Plain(), 3)
    want = given.plan().rows
    for other in (copy.deepcopy(given.solver), pickle.loads(pickle.dumps(given.solver))):
        assert Sampler(NETWORK, other, 3).plan().rows == want


def test_an_object_says_what_a_solver_may_say():
    class Told(Plain):
        name, order, exact, stochastic = "told", 3, False, True

        def objection(self, process, points):
            return "three steps are too few" if len(points) == 4 else None

        def misfit(self, network):
            return "it needs classes" if network.classes is None else None

        def default_grid(self, process):
            return "quadratic"

    sampler = Sampler(NETWORK, Told(), 4)
    assert sampler.points == Sampler(NETWORK, "euler", 4, grid="quadratic").points
    said = sampler.solver
    assert (said.name, said.order, said.calls, said.stochastic) == ("told", 3, 1, True)
    assert not sampler.plan().exact
    with pytest.raises(ValueError, match="solver 'told' cannot run this: three steps are too few"):
        Sampler(NETWORK, Told(), 3)
    with pytest.raises(ValueError, match="solver 'told' cannot run this: it needs classes"):
        Sampler(ScoreNetwork(lambda x, t: x, VP(), (2,)), Told(), 4)


def test_names():
    assert Kin().name == "Kin" and Scaled().name == "Scaled"
    assert solver(Plain()).name == "Plain"
    for name, kind in SOLVERS.items():
        assert kind().name == name, f"the solver in SOLVERS[{name!r}] has another name"


@pytest.mark.parametrize(
    "own, message",
    [
        (Plain, r"solver=Plain is a class; give an object, Plain\(\)"),
        (Scaled, r"solver=Scaled is a class; give an object"),
        (3, r"solver=3 is neither a name nor an object with updates\(process, points\)"),
        (object(), "neither a name nor an object with updates"),
        (type("Named", (Plain,), {"name": 7})(), "a solver's name is a text, got 7"),
        (type("Taken", (Plain,), {"name": "heun"})(), "name 'heun' is that of Heun.*yours another"),
        (type("Taken", (SOLVERS["euler"],), {"name": "euler"})(), "name 'euler' is that of Euler"),
        (type("Bare", (Solver,), {})(), r"solver 'Bare' writes no updates\(process, points\)"),
    ],
)
def test_what_is_no_solver(own, message):
    with pytest.raises((ValueError, NotImplementedError), match=message):
        Sampler(NETWORK, own, 4)


@pytest.mark.parametrize(
    "update, message",
    [
        (lambda s, t: {0: x}, r"'Wrong': updates\(process, points\) gave {0: Linear"),
        (lambda s, t: Update(s, {0: 0.5}, t), r"Update\(new={0: 0.5}\): give slot -> its new"),
        (lambda s, t: Update(s, x, t), r"give slot -> its new content, written with x, denoised"),
        (lambda s, t: Update(s.t, {0: x}, t), r"Update\(at=1.0\): give the point of the call"),
        (lambda s, t: Update(s, {0: slot(2)}, t), r"row 1 reads slots \[2\] before any row wrote"),
        (
            lambda s, t: Update(s, {0: 0.5 * transfer(s, t, x, denoised)}, t),
            "row 1 does not transport x0: .* slot 0 holds .* check the row's weights .* or say exact=False",
        ),
    ],
)
def test_updates_that_are_none(update, message):
    class Wrong:
        def updates(self, process, points):
            for s, t in steps(points):
                yield update(s, t)

    with pytest.raises(ValueError, match=message):
        Sampler(NETWORK, Wrong(), 4)


def test_updates_that_yield_nothing():
    class Silent:
        def updates(self, process, points):
            list(points)

    with pytest.raises(
        ValueError, match=r"gave None; yield an Update\(at, new, state\) for every row"
    ):
        Sampler(NETWORK, Silent(), 4)


# --- noise -----------------------------------------------------------------------------------


class OneDraw(Plain):
    """Draws in one step of a run, or by churn; it says nothing of it."""

    def __init__(self, step, churn):
        self.step, self.churn = step, churn

    def updates(self, process, points):
        for i, update in enumerate(super().updates(process, points)):
            drawn = i == self.step
            new = {0: update.new[0] + (0.1 * normal(0) if drawn and not self.churn else 0.0 * x)}
            churn = 0.1 if drawn and self.churn else 0.0
            yield Update(update.at, new, update.state, churn=churn)


class Upward(Plain):
    """Draws wherever a step does not end at clean data."""

    def updates(self, process, points):
        for update in super().updates(process, points):
            new = {0: update.new[0] + 0.1 * update.state.sigma * normal(0)}
            yield Update(update.at, new, update.state)


@pytest.mark.parametrize(
    "own, steps",
    [
        (Noisy(), 4),
        (OneDraw(2, False), 4),
        (OneDraw(0, True), 4),
        (OneDraw(3, True), 4),
        (Upward(), 1),
    ],
)
def test_an_object_that_draws_does_not_encode(own, steps):
    sampler = Sampler(exact_network("euler"), own, steps)
    with pytest.raises(ValueError, match=f"'{type(own).__name__}' adds fresh noise"):
        sampler.encode(torch.ones(1, 1))


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_say_whether_they_draw(name):
    """`stochastic` is for lists; from a whole state a plan's normals are fresh noise."""
    sampler = Sampler(exact_network(name), name, 4)
    process = sampler.network.process
    start = "whole" if process.blocks == 2 else "state"
    plan = sampler.solver.plan(process, sampler.points, sampler.network, start)
    assert sampler.solver.stochastic is (plan.normals > 0)


# --- recipes ---------------------------------------------------------------------------------


def recorded(rule, **request):
    made = Sampler(exact_network("euler"), rule, 4).sample(3, **request)
    return made.samples, json.loads(json.dumps(made.recipe, allow_nan=False))


@pytest.mark.parametrize(
    "own", [Plain(), Midpoint(), Noisy(), Scaled(0.5, weights=(3.0,)), Scaled(np.float32(2)), Kin()]
)
def test_recipes_replay_with_the_object(own):
    samples, recipe = recorded(own)
    again = Sampler.replay(exact_network("euler"), recipe, {"solver": own})
    assert torch.equal(again.samples, samples) and again.recipe == recipe
    with pytest.raises(ValueError, match=f"the recipe's solver '{type(own).__name__}' is none of"):
        Sampler.replay(exact_network("euler"), recipe)


def test_a_recipe_holds_the_options_of_an_object():
    _, recipe = recorded(Scaled(0.5))
    options = {"factor": 0.5, "top": 1e308, "weights": [1.0, 2.0]}  # no `rule`
    assert recipe["solver"] == {"name": "Scaled", "options": options}
    for weights in (np.array([[3.0]]), torch.tensor([[3.0]]), [np.array([3.0])]):
        assert recorded(Scaled(weights=weights))[1]["solver"]["options"]["weights"] == [[3.0]]
    _, recipe = recorded(Scaled(weights={"first": np.float64(math.inf)}))
    assert recipe["solver"]["options"]["weights"] == {"first": 1e308}


@pytest.mark.parametrize(
    "rule, how, message",
    [
        (Scaled(0.5), {"solver": Scaled(0.6)}, r"made with Scaled\(factor=0.5, .*\) and Scaled\(f.*=0.6"),
        (Scaled(0.5), {"solver": Plain()}, r"made with Scaled\(.*\) and Plain\(\) is given; give the same"),
        (Plain(), {"solver": "euler"}, r"made with Plain\(\) and euler\(\) is given"),
        ("euler", {"solver": Plain()}, r"made with euler\(\) and Plain\(\) is given"),
        ("ddim", {"solver": solver("ddim", eta=0.5)}, r"made with ddim\(eta=0.0.* ddim\(eta=0.5"),
        (Plain(), {"solver": Plain}, "is a class; give an object"),
        (Plain(), {"sovler": Plain()}, "replay's how takes no sovler; did you mean solver"),
        (Plain(), {"solver": Plain(), "steps": 8}, "replay's how takes no steps; it takes"),
        (Plain(), [Plain()], r"how=\[.*\]: give a mapping of Sampler's arguments, as {'backend'"),
    ],
)  # fmt: skip
def test_replays_with_something_else(rule, how, message):
    _, recipe = recorded(rule)
    with pytest.raises(ValueError, match=message):
        Sampler.replay(exact_network("euler"), recipe, how)


def test_a_shipped_solver_may_be_given_again():
    samples, recipe = recorded("heun")
    again = Sampler.replay(exact_network("euler"), recipe, {"solver": solver("heun")})
    assert torch.equal(again.samples, samples)


OWN_FILE = """
from dataclasses import dataclass
from diffusion_engine.solvers import Solver, Update, denoised, steps, transfer, x

@dataclass(frozen=True)
class Slow(Solver):
    exact = False
    factor: float = 1.0

    def updates(self, process, points):
        for s, t in steps(points):
            yield Update(s, {0: self.factor * transfer(s, t, x, denoised)}, t)

slow = Slow(0.5)
"""


def test_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_solvers.py").write_text(OWN_FILE)
    few = ("--model", "exact", "--steps", "3")
    given = ("--solver", "own_solvers:Slow", "--option", "factor=0.5")

    def run(*words, code=0):
        monkeypatch.setattr("sys.argv", ["diffusion-engine", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert (end.value.code or 0) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    run("sample", "--out", "x.npz", "--n", "2", *few, *given)
    again = ("sample", "--out", "y.npz", "--recipe", "x.npz", "--model", "exact")
    for words in (given, ("--solver", "own_solvers:slow")):
        run(*again, *words)
        one, other = (np.load(name)["samples"] for name in ("x.npz", "y.npz"))
        assert np.array_equal(one, other)
    assert run("plan", *few, *given).startswith("Slow: 4 rows")
    for words, message in (
        ((), "the recipe's solver 'Slow' is none of this package's"),
        (("--option", "factor=0.5"), "as they were made: leave out --option"),
        (("--solver", "own_solvers:Slow"), "made with Slow(factor=0.5) and Slow(factor=1.0) is given"),
    ):  # fmt: skip
        assert message in run(*again, *words, code=2)
    for words, message in (
        (("--solver", "own_solvers:Slow", "--option", "k=1"), "unexpected keyword argument 'k'"),
        (("--solver", "own_solvers:slow", "--option", "k=1"), "options ['k'] go with a solver's name"),
        (("--solver", "own_solvers:quick"), "has no attribute 'quick'; write package.module:name"),
        (("--solver", "own_solvers:OWN"), "has no attribute 'OWN'"),
        (("--solver", "os:getcwd"), "neither a name nor an object with updates"),
    ):  # fmt: skip
        error = run("plan", *few, *words, code=2)
        assert message in error and error.count("\n") == 1


# --- the pages -------------------------------------------------------------------------------


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


def test_the_solver_of_contributing_is_what_a_shipped_one_is(monkeypatch):
    own = module(
        "diffusion_engine.solvers.midpoint", written("CONTRIBUTING.md", "<!-- midpoint -->")
    )
    loop = module("oracles.midpoint", written("CONTRIBUTING.md", "<!-- midpoint oracle -->"))
    monkeypatch.setitem(SOLVERS, "midpoint", own.Midpoint)
    monkeypatch.setattr(oracles, "MODULES", [*oracles.MODULES, loop])
    for schedule in ("vp", "edm", "flow", "ddpm"):
        for n in (1, 7):
            test_solvers.test_equals_oracle("midpoint", {}, schedule, n)
        test_solvers.test_row_algebra("midpoint", {}, schedule)
    test_oracles.test_a_point_mass_is_sampled_exactly("midpoint", {})
    test_solvers_say_whether_they_draw("midpoint")
    test_names()
    recorded("midpoint")
    ends = [test_oracles.tm_end("midpoint", {}, "lam", n, 0.7) for n in (40, 80)]
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
    folders = [ROOT / name for name in ("", "diffusion_engine", "csrc/cpu", "csrc/cuda", "tests")]
    assert [n for n in named if not any((folder / n).is_file() for folder in folders)] == []
