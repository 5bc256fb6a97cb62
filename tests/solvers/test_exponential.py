"""Exponential Runge-Kutta: phi functions, Butcher tables by name and from JSON, their orders and stages."""

import copy
import json
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from analytic import network
from oracles.problems import TM
from solver_checks import equals_oracle

from diffusion_engine import Sampler
from diffusion_engine.processes import VP, FlowMatching
from diffusion_engine.solvers import solver
from diffusion_engine.solvers.butcher import read
from diffusion_engine.solvers.phi import FAR, phi
from diffusion_engine.solvers.tableaus import NAMED, named

ORDERS = {
    "res_2s": 2, "res_3s": 3, "exp_heun": 2, "etdrk3": 3, "etdrk4": 4, "krogstad": 4, "strehmel_weiner": 4,
    "hochbruck_ostermann": 4,
}  # fmt: skip
MIDPOINT = {"c": [0, 0.5], "a": [[], [[[0.5, 1]]]], "b": [0, [[1, 1]]]}


def exact_phi(k: int, z: float) -> Fraction:
    """The series, in whole numbers throughout."""
    term, total, x = Fraction(1, math.factorial(k)), Fraction(0), Fraction(z)
    n = 0
    while n < 2 * abs(z) or abs(term) > Fraction(1, 10**40):
        total += term
        n += 1
        term = term * x / (n + k)
    return total


@pytest.mark.parametrize("k", range(10))
def test_phi(k):
    edges = [1e-300, 1e-12, 1e-3, 0.3, 1.0, 2.5, 7.0, 20.0, FAR - 0.01, FAR + 0.01, 45.0]
    for z in [0.0, *edges, *(-z for z in edges)]:
        off = Fraction(phi(k, z)) / exact_phi(k, z) - 1
        assert abs(off) < Fraction(1, 10**15), (k, z, float(off))


@pytest.mark.parametrize("k", range(1, 10))
def test_phi_far_below(k):
    """phi_k tends to 1 / ((k - 1)! |z|)."""
    assert -1e12 * phi(k, -1e12) * math.factorial(k - 1) == pytest.approx(-1.0, rel=1e-10)


@pytest.mark.parametrize("name", NAMED)
def test_orders_of_named_tableaus(name):
    assert set(ORDERS) == set(NAMED)
    assert named(name).order == ORDERS[name]
    assert read(json.loads(json.dumps(named(name).as_json()))) == named(name)


@pytest.mark.parametrize("c2, c3", [(0.3, 0.9), (1.0, 0.5), (0.25, 2.0 / 3.0)])
def test_orders_of_other_nodes(c2, c3):
    assert named("res_2s", (c2,)).order == 2
    assert named("res_3s", (c2, c3)).order == 3


def with_moved(name: str, weight: float) -> dict:
    """A tableau whose last two weights b are off by as much phi_2, the one up and the other down."""
    made = copy.deepcopy(named(name).as_json())
    made["b"][-1].append([weight, 2])
    made["b"][-2].append([-weight, 2])
    return made


@pytest.mark.parametrize("name", NAMED)
def test_a_wrong_weight_costs_the_order(name):
    assert read(with_moved(name, 0.1)).order == 1
    assert read(with_moved(name, 0.0)).order == ORDERS[name]


def test_a_classic_rule_as_an_exponential_one():
    """The midpoint rule with phi_1 alone has order 2, as where steps are short all phi_1 are 1."""
    assert read(MIDPOINT).order == 2
    assert solver("exp_rk", tableau=MIDPOINT).order == 2


@pytest.mark.parametrize("schedule", ["vp", "flow"])
@pytest.mark.parametrize(
    "options",
    [
        *({"tableau": name} for name in NAMED),
        {"nodes": (0.3,)},
        {"tableau": "res_3s", "nodes": (0.4, 0.7), "coordinates": "edm"},
        {"tableau": MIDPOINT},
    ],
    ids=str,
)
def test_tableaus_equal_the_oracle(options, schedule):
    equals_oracle("exp_rk", options, schedule, 3)


@pytest.mark.parametrize("name", NAMED)
def test_a_stage_is_a_row_and_a_slot(name):
    sampler = Sampler(network(TM, VP()), "exp_rk", 3, tableau=name)
    plan, stages = sampler.plan(), len(named(name).c)
    assert plan.slots == stages
    assert len(plan.rows) == 1 + 2 * stages + 1  # the last step, to clean data, has one call


def test_the_first_step_from_pure_noise():
    """In a flow's coordinates it is a step as others; in log(alpha / sigma) it has one call."""
    for coordinates, calls in (("flow", 3), ("edm", 1)):
        options = {"tableau": "res_3s", "coordinates": coordinates}
        plan = Sampler(network(TM, FlowMatching()), "exp_rk", 4, **options).plan()
        assert len(plan.rows) == 1 + calls + 2 * 3 + 1


def test_a_tableau_lies_in_the_recipe():
    sampler = Sampler(network(TM, VP()), "exp_rk", 3, tableau=MIDPOINT)
    recipe = json.loads(json.dumps(sampler.sample(2, seed=3).recipe))
    assert read(recipe["solver"]["options"]["tableau"]) == read(MIDPOINT)
    again = Sampler.replay(network(TM, VP()), recipe)
    assert np.array_equal(again.samples, sampler.sample(2, seed=3).samples)


BAD = [
    (7, "or give a name"),
    ({"c": [0]}, 'a tableau is {"c"'),
    ({"c": [0.1], "a": [[]], "b": [[[1, 1]]]}, "the first at 0"),
    ({"c": [0, 1.5], "a": [[], [[[1.5, 1]]]], "b": [[[1, 1]], 0]}, "lie between 0 and 1"),
    ({"c": [0] * 6, "a": [[]] * 6, "b": []}, "5 at most"),
    ({"c": [0, 1], "a": [[]], "b": []}, "give a row for each"),
    ({"c": [0], "a": [[[[1, 1]]]], "b": [[[1, 1]]]}, "only explicit methods run"),
    ({"c": [0], "a": [[]], "b": [[[1]]]}, "has the term"),
    ({"c": [0], "a": [[]], "b": [[[1, 10]]]}, "k is 0 to 9"),
    ({"c": [0], "a": [[]], "b": [[[1, 1.5]]]}, "k of phi_k"),
    ({"c": [0], "a": [[]], "b": [[[math.nan, 1]]]}, "b[0]=nan"),
    ({"c": [0], "a": [[]], "b": [[[1, 2]]]}, "row b of a tableau sums to 0.5 at h=0"),
    ({"c": [0, 0.5], "a": [[], [[[0.5, 0]]]], "b": [[[1, 1]], 0]}, "row a[1] of a tableau sums to"),
    ("rk4", "choose res_2s"),
]


@pytest.mark.parametrize("given, said", BAD, ids=[said for _, said in BAD])
def test_what_is_no_tableau(given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        solver("exp_rk", tableau=given)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"tableau": "etdrk4", "nodes": (0.5,)}, "others none"),
        ({"nodes": (0.0,)}, "above 0"),
        ({"tableau": "res_3s", "nodes": (2 / 3, 1.0)}, "neither 2/3 nor c3"),
        ({"tableau": "res_3s", "nodes": (0.5, 0.5)}, "neither 2/3 nor c3"),
        ({"tableau": MIDPOINT, "nodes": (0.5,)}, "'res_2s' and 'res_3s' alone"),
        ({"coordinates": "time"}, "choose auto, edm, flow"),
    ],
)  # fmt: skip
def test_what_is_no_option_of_a_tableau(options, said):
    with pytest.raises(ValueError, match=said):
        solver("exp_rk", **options)


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("res_multistep", {"eta": -0.5}, "eta=-0.5: an amount of noise"),
        ("res_multistep", {"published": True}, "give both"),
        ("res_multistep", {"coordinates": "lam"}, "choose auto, edm, flow"),
        ("gradient_estimation", {"coordinates": "lam"}, "choose auto, edm, flow"),
        ("heunpp2", {"coordinates": "lam"}, "choose auto, edm, flow"),
        ("dpmpp_2s_ancestral", {"eta": -1}, "eta=-1: an amount of noise"),
        ("euler_overshoot", {"eta": -1}, "eta=-1: a step goes beyond"),
    ],
)
def test_what_is_no_option(name, options, said):
    with pytest.raises(ValueError, match=said):
        solver(name, **options)
