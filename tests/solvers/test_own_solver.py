"""Solvers that users write: an object with `updates` alone does all that a shipped solver does."""

import copy
import importlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from own_solvers import Kin, Midpoint, Noisy, Plain, Scaled
from solver_checks import says_whether_it_draws
from tape import TapeRecorder, taped

from diffusion_engine import SOLVERS, Sampler, ScoreNetwork, profile, solvers
from diffusion_engine.executors import Graph, stages
from diffusion_engine.genie import exact_derivative
from diffusion_engine.processes import VP
from diffusion_engine.solvers import (
    Solver,
    Update,
    denoised,
    normal,
    raw,
    slot,
    solver,
    steps,
    transfer,
    x,
)  # fmt: skip
from diffusion_engine.testing import exact_network, labelled_mixture

NETWORK = ScoreNetwork(
    lambda x, t, y: 0.3 * x - 0.05 * y[:, None], VP(), (2,), null=3, classes=3, prediction="eps"
)  # fmt: skip


KINDS = ({}, {"guidance": 2.0}, {"masked": True}, {"kind": "image", "start": 0.5}, {"refine": 0})


def rows(rule):
    """Of plans of all kinds."""
    sampler = Sampler(NETWORK, rule, 4)
    return [sampler.plan(**kind).rows for kind in KINDS]


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
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))
    network = ScoreNetwork(lambda x, t: 0.3 * x.abs(), VP(), (2,))
    for own, noise in ((Plain(), None), (Noisy(), None), (Noisy(), "brownian")):
        how = [{}, {"executor": Graph(recorder=TapeRecorder())}]
        eager, captured = (
            Sampler(network, own, 4, **options).sample(3, noise=noise) for options in how
        )
        assert torch.equal(eager.samples, captured.samples)
    shipped = Sampler(network, "ddpm", 4).sample(3, noise="brownian").samples
    assert torch.allclose(captured.samples, shipped, rtol=0, atol=1e-6)


def test_noise_of_a_negative_weight():
    network = ScoreNetwork(lambda x, t: 0.3 * x.abs(), VP(), (2,))
    given = {"x": torch.randn(3, 2), "noised": True}
    normals = torch.randn(5, 1, 3, 2)
    plain, none, mirrored = (Sampler(network, Noisy(sign), 4) for sign in (1.0, 0.0, -1.0))
    made = mirrored.sample(**given, noise=-normals).samples
    assert torch.equal(made, plain.sample(**given, noise=normals).samples)
    drawn, middle = (own.sample(**given).samples for own in (mirrored, none))
    assert (drawn != middle).all()


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

        def objection(self, parameterisation, points):
            if parameterisation.classes is None:
                return "it needs classes"
            return "three steps are too few" if len(points) == 4 else None

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


def test_an_order_may_be_a_field_or_set():
    @dataclass
    class Field(Solver):
        order: int

    class Set(Solver):
        def __init__(self):
            self.order = 3

    assert (Field(4).order, Set().order, Set().asymptotic, Solver().order) == (4, 3, 3, 1)


def test_only_what_solvers_say_is_heard():
    class Busy(Plain):
        plan = "of the day"

    assert Sampler(NETWORK, Busy(), 3).sample(2, condition=1).samples.shape == (2, 2)
    assert "Busy" in repr(Sampler(NETWORK, Busy(), 3).solver)

    class Broken(Plain):
        @property
        def source(self):
            return self.paper

    with pytest.raises(AttributeError, match="paper"):
        print(solver(Broken()).source)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_table_knows_a_solver_by_its_name(name):
    assert SOLVERS[name]().name == name, f"the solver in SOLVERS[{name!r}] has another name"


def test_every_solver_of_the_package_is_in_the_table():
    """What is derived from, and what wraps others, has no name of its own to be found by."""
    wraps = {"Own", "Inverse"}
    between = {kind for made in SOLVERS.values() for kind in made.__mro__}
    for path in sorted(Path(solvers.__file__).parent.glob("*.py")):
        module = importlib.import_module(f"{solvers.__name__}.{path.stem}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Solver) and kind.__name__ not in wraps:
                assert kind in between, f"{kind.__name__} of solvers/{path.name} is not in SOLVERS"


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
    with pytest.raises(ValueError, match=message):
        Sampler(NETWORK, own, 4)


@pytest.mark.parametrize(
    "update, message",
    [
        (lambda s, t: {0: x}, r"'Wrong': updates\(process, points\) gave {0: Linear"),
        (lambda s, t: Update(s, {0: 0.5}, t), r"Update\(new={0: 0.5}\): give slot -> its new"),
        (lambda s, t: Update(s, x, t), r"give slot -> its new content, written with x, denoised"),
        (lambda s, t: Update(s.t, {0: x}, t), r"Update\(at=1.0\): give the point of the call"),
        (lambda s, t: Update(s, {0: x}, t.t), r"Update\(state=0\.\d+\): give a point, or None"),
        (
            lambda s, t: Update(s, {0.5: x}, t),
            r"Update\(new={0.5: .*: give slot -> its new content",
        ),
        (lambda s, t: Update(s, {0: x * denoised}, t), r"\(1 S0\) \* \(1 D\): an update is linear"),
        (lambda s, t: Update(s, {0: x / t.sigma}, t), r"'Wrong' divides by 0: .* first_order_only"),
        (
            lambda s, t: Update(s, {0: 7.0 * x}, None),
            "the last row has the state None, and the run's last",
        ),
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


def test_rows_that_end_too_early():
    class Early(Plain):
        def updates(self, process, points):
            return super().updates(process, points[:-2])

    with pytest.raises(
        ValueError, match=r"the state t=0\.\d+, and the run's last point is t=0; write"
    ):
        Sampler(NETWORK, Early(), 5)
    with pytest.raises(ValueError, match=r"suits solver 'Early': mixture: .* the last row has the"):
        exact_network(Early())


def test_updates_that_yield_nothing():
    class Silent:
        def updates(self, process, points):
            list(points)

    with pytest.raises(
        ValueError, match=r"gave None; yield an Update\(at, new, state\) for every row"
    ):
        Sampler(NETWORK, Silent(), 4)


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


@pytest.mark.parametrize("name", [name for name, kind in SOLVERS.items() if not kind.needs])
def test_solvers_say_whether_they_draw(name):
    says_whether_it_draws(name)
