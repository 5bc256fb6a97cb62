"""Recipes of solvers that users write, replayed with the object, and such solvers on the command line."""

import json
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from own_solvers import Kin, Midpoint, Noisy, Plain, Scaled

from diffusion_engine import Sampler
from diffusion_engine.cli import app as cli
from diffusion_engine.processes import Point
from diffusion_engine.solvers import Update, denoised, normal, solver, steps, transfer, x
from diffusion_engine.testing import exact_network


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
    for top in (-math.inf, math.nan):
        assert "top" not in recorded(Scaled(top=top))[1]["solver"]["options"]


def test_what_an_object_keeps_for_itself_is_no_option():
    @dataclass
    class Counted(Plain):
        plans: int = field(default=0, init=False)

        def updates(self, process, points):
            self.plans += 1
            return super().updates(process, points)

    samples, recipe = recorded(used := Counted())
    assert recipe["solver"] == {"name": "Counted", "options": {}} and used.plans
    again = Sampler.replay(exact_network("euler"), recipe, {"solver": Counted()})
    assert torch.equal(again.samples, samples)


@pytest.mark.parametrize(
    "rule, how, message",
    [
        (Scaled(0.5), {"solver": Scaled(0.6)}, r"made with Scaled\(factor=0.5, .*\) and Scaled\(f.*=0.6"),
        (Scaled(0.5), {"solver": Plain()}, r"made with Scaled\(.*\) and Plain\(\) is given; give the same"),
        (Plain(), {"solver": "dpm_solver_2"}, r"made with Plain\(\) and dpm_solver_2\(\) is given"),
        ("dpm_solver_2", {"solver": Plain()}, r"made with dpm_solver_2\(\) and Plain\(\) is given"),
        ("ddim", {"solver": solver("ddim", eta=0.5)}, r"made with ddim\(eta=0.0.* ddim\(eta=0.5"),
        (Plain(), {"solver": Plain}, "is a class; give an object"),
        # codespell:ignore-next-line
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
    del recipe["solver"]["options"]["s_noise"]  # as of a version that had no such option
    again = Sampler.replay(exact_network("euler"), recipe, {"solver": solver("heun")})
    assert torch.equal(again.samples, samples)


MINE = """
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
    (tmp_path / "mine.py").write_text(MINE)
    few = ("--model", "exact", "--steps", "3")
    given = ("--solver", "mine:Slow", "--option", "factor=0.5")

    def run(*words, code=0):
        monkeypatch.setattr("sys.argv", ["diffusion-engine", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert (end.value.code or 0) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    run("sample", "--out", "x.npz", "--n", "2", *few, *given)
    again = ("sample", "--out", "y.npz", "--recipe", "x.npz", "--model", "exact")
    for words in (given, ("--solver", "mine:slow")):
        run(*again, *words)
        one, other = (np.load(name)["samples"] for name in ("x.npz", "y.npz"))
        assert np.array_equal(one, other)
    assert run("plan", *few, *given).startswith("Slow: 4 rows")
    for words, message in (
        ((), "the recipe's solver 'Slow' is none of this package's"),
        (("--option", "factor=0.5"), "as they were made: leave out --option"),
        (("--solver", "mine:Slow"), "made with Slow(factor=0.5) and Slow(factor=1.0) is given"),
    ):  # fmt: skip
        assert message in run(*again, *words, code=2)
    for words, message in (
        (("--solver", "mine:Slow", "--option", "k=1"), "unexpected keyword argument 'k'"),
        (("--solver", "mine:slow", "--option", "k=1"), "options ['k'] go with a solver's name"),
        (("--solver", "mine:quick"), "has no attribute 'quick'; write package.module:name"),
        (("--solver", "mine:OWN"), "has no attribute 'OWN'"),
        (("--solver", "os:getcwd"), "neither a name nor an object with updates"),
    ):  # fmt: skip
        error = run("plan", *few, *words, code=2)
        assert message in error and error.count("\n") == 1


def test_what_a_plain_object_holds_is_in_its_recipe():
    class Scaled:
        def __init__(self, scale):
            self.scale, self._seen = scale, []

        def updates(self, process, points):
            for s, t in steps(points):
                noise = 0.3 * self.scale * t.sigma
                kept = transfer(s, Point(t.t, t.alpha, (t.sigma**2 - noise**2) ** 0.5), x, denoised)
                yield Update(s, {0: kept + noise * normal(0)}, t)

    network = exact_network(Scaled(1.0))
    made = Sampler(network, Scaled(0.5), 4).sample(2)
    assert made.recipe["solver"] == {"name": "Scaled", "options": {"scale": 0.5}}
    again = Sampler.replay(network, made.recipe, how={"solver": Scaled(0.5)})
    assert torch.equal(again.samples, made.samples)
    with pytest.raises(
        ValueError, match=r"made with Scaled\(scale=0.5\) and Scaled\(scale=0.9\) is given"
    ):
        Sampler.replay(network, made.recipe, how={"solver": Scaled(0.9)})
