"""Outputs that are forecast: rows without a call, their order, what they save, and what is refused."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from batches import capacity, jobs_of, together

from diffusion_engine import Plan, Sampler, ScoreNetwork
from diffusion_engine.compare import Fine, distance, fine_solution
from diffusion_engine.executors import Eager
from diffusion_engine.plan.forecast import forecast, place, spared
from diffusion_engine.processes import EDM, VP, FlowMatching
from diffusion_engine.testing import Gaussian, cld_mixture, labelled_mixture

PROCESSES = {"vp": VP(), "edm": EDM(), "flow": FlowMatching()}
F64 = {"dtype": torch.float64, "backend": "torch"}


def polynomial(degree, calls):
    """A network whose output is a polynomial in the place of its call alone."""
    process = VP()

    def module(x, t):
        calls.append(len(x))
        u = torch.tensor([place(process.at(float(each))) for each in t], dtype=x.dtype)
        return (
            sum((0.3 * (k + 1) * (-u) ** k for k in range(degree + 1)), 0.0 * u).view(-1, 1)
            + 0.0 * x
        )

    return ScoreNetwork(module, process, (1,), prediction="v", label_dtype=torch.float64)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp_2m", "heun", "euler_ancestral"])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_polynomials_are_forecast_exactly(solver, order):
    """And no higher ones; `nfe` counts the calls that are made."""
    made, off = [], {}
    # The first calls of 'heun' lie at fewer places.
    asked = {"order": order, "every": 3, "after": 2 * order + 1 if solver == "heun" else order + 1}
    for degree in (order, order + 1):
        network = polynomial(degree, made)
        whole = Sampler(network, solver, 8, **F64).sample(2)
        part = Sampler(network, solver, 8, forecast=asked, **F64)
        made.clear()
        result = part.sample(2)
        assert made == [2] * result.nfe and result.nfe < 0.7 * whole.nfe
        assert result.evaluations == 2 * result.nfe
        off[degree - order] = (result.samples - whole.samples).abs().max()
    assert off[0] < 1e-10 < 1e-6 < off[1]


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize(("solver", "order", "slope"), [("dpmpp_2m", 1, 2), ("dpmpp_2m", 0, 1)])
def test_order(process, solver, order, slope):
    """A forecast of order 1 keeps a second-order solver's order; the last output again has the first."""
    network = Gaussian(0.4, 0.3).network(process, (1,), prediction="x0")
    how = {"end": "t_min", "grid": Fine.of(network).grid}
    fine = fine_solution(network, range(4), end="t_min", fine=Fine.of(network, 400))
    off = [
        distance(
            Sampler(network, solver, n, forecast={"order": order, "every": 2}, **how)
            .sample(4)
            .samples,
            fine,
        )
        for n in (32, 64, 128)
    ]
    found = [math.log2(a / b) for a, b in pairwise(off)]
    # Of order 2 more is seen at such steps.
    assert slope - 0.3 < found[-1] < slope + (0.3 if order == 0 else 1.3), (off, found)


def test_rows():
    network = labelled_mixture()
    asked = {"order": 1, "calls": [2, 3, 5]}
    plan = Sampler(network, "dpmpp_2m", 8, forecast=asked, guidance=2.0, clip=(-1, 1)).plan()
    silent = [i for i, row in enumerate(plan.rows) if row.call is None]
    assert silent == [0, 3, 4, 6] and plan.nfe == 5 and plan.evaluations == 10 and plan.slots == 4
    row, own = plan.rows[3], Sampler(network, "dpmpp_2m", 8, clip=(-1, 1)).plan().rows[3]
    u = [place(plan.rows[i].call.at) for i in (1, 2)] + [place(own.call.at)]
    weight = (u[2] - u[0]) / (u[1] - u[0])
    assert row.p == pytest.approx((own.p[0], 0.0, own.q[0] * (1.0 - weight), own.q[0] * weight))
    assert row.clip == (-1.0, 1.0) and row.state == own.state and row.new == own.new
    assert plan.rows[2].e == (2.0, -1.0)  # of guided outputs
    assert "no call  D = clip(" in str(plan)
    assert Plan.from_json(plan.to_json()) == plan
    assert spared(9, 3, 2) == (2, 3, 5, 6) and spared(9, 1, 2) == ()
    assert forecast(plan, ()) is plan


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        ("ddim", {"clipped_eps": False}),
        ("dpmpp_2m_sde", {}),
        ("dpm_solver_2", {}),
        ("lms", {"max_order": 2}),
    ],
)
@pytest.mark.parametrize("guider", [None, "apg", "rescale"])
def test_other_solvers_and_guiders(solver, options, guider):
    """What is forecast of a constant output is that output, whoever guides, also where eps is used apart."""
    outputs = torch.tensor([0.3, -0.2])

    def module(x, t, y):
        return outputs[y].view(-1, 1).to(x.dtype) + 0.0 * x

    network = ScoreNetwork(module, VP(), (1,), prediction="v", null=1, classes=1)
    how = {"guidance": 2.0, "guider": guider and {"name": guider}, **options}
    if guider == "apg":
        how["guider"]["options"] = {"momentum": 0.0, "eta": 1.0}
    whole = Sampler(network, solver, 7, **how).sample(2, condition=0)
    part = Sampler(network, solver, 7, forecast={"order": 0, "every": 3}, **how).sample(
        2, condition=0
    )
    assert part.nfe < whole.nfe
    assert (part.samples - whole.samples).abs().max() < 2e-5


def test_a_silent_row_takes_no_entry_of_the_others():
    """Samples at other rows of other plans beside it, each as alone."""
    network = labelled_mixture(shape=(2,))
    samplers = [
        Sampler(network, "ddim", 6, forecast={"order": 1, "calls": [2, 4]}),
        Sampler(network, "dpmpp_2m", 6),
        Sampler(network, "ddim", 6, forecast={"order": 0, "calls": [2, 3]}),
    ]
    jobs = jobs_of(samplers, range(3), conditions=(torch.tensor(1),))
    with Eager("cpp").batch(network, capacity(network, jobs)) as batch:
        seats, entries = [batch.admit(job) for job in jobs], []
        while batch.live:
            given = batch.inputs()
            entries.append(0 if given is None else len(given[0]))
            batch.step()
        both = batch.read(seats)
    assert entries == [0, 3, 3, 1, 2, 2, 3]
    for job, made in zip(jobs, both, strict=True):
        alone, _ = together(Eager("cpp"), network, [job])
        assert torch.equal(alone[0], made)


def test_replayed_and_asked_as_json():
    network = labelled_mixture()
    sampler = Sampler(network, "ddim", 8, forecast={"every": 2})
    made = sampler.sample(2, condition=1)
    assert made.recipe["forecast"] == {"order": 1, "every": 2, "after": None, "calls": None}
    again = Sampler.replay(network, made.recipe)
    assert torch.equal(again.samples, made.samples) and again.nfe == made.nfe == 5
    saved = Sampler.from_plan(network, Plan.from_json(sampler.plan().to_json()))
    assert torch.equal(saved.sample(2, condition=1).samples, made.samples)
    old = {name: value for name, value in made.recipe.items() if name != "forecast"}
    assert Sampler.replay(network, old).nfe == 8


@pytest.mark.parametrize(
    ("solver", "asked", "why"),
    [
        ("ddim", {"calls": [0]}, "the first call has no output before it"),
        ("ddim", {"calls": [7]}, "leave out some of 1 to 6"),
        (
            "unipc",
            {"order": 1},
            "takes 5 of 5 slots, and order=1 keeps 2 outputs: take another solver",
        ),
        ("dpmpp_3m", {"order": 2}, "give order=1 or less"),
        ("ddim", {"every": 0}, "every"),
        ("ddim", {"order": 5}, "order"),
        ("ddim", {"order": 1.5}, "order=1.5"),
        ("ddim", {"evry": 2}, "a forecast has no evry; did you mean every"),
        ("ddim", "taylor", "forecast"),
    ],
)
def test_bad_input(solver, asked, why):
    with pytest.raises(ValueError, match=why):
        Sampler(labelled_mixture(), solver, 8, forecast=asked)


def test_refusals():
    network, few = labelled_mixture(), {"every": 2}
    guided = Sampler(network, "ddim", 8, guidance=2.0).plan()
    learned = network.with_module(network.module, variance="learned")
    for refused, why in (
        (lambda: forecast(guided, [3]), "is guided already"),
        (lambda: Sampler(cld_mixture(), "cld_em", 8, forecast=few), "reads a velocity too"),
        (
            lambda: Sampler(learned, "ddpm", 8, variance="learned", forecast=few),
            "takes its variance from",
        ),
        (
            lambda: Sampler(network, "ddim", 8, cfg_pp=True, forecast=few),
            "unconditional output apart",
        ),
        (
            lambda: Sampler(network, "ddim", 8, driver="adaptive", forecast=few),
            "leave one of them out",
        ),
        (
            lambda: Sampler(network, "ddim", 8, guider="threshold", forecast=few),
            "leave one of them out",
        ),
        (
            lambda: Sampler(network, "ddim", 8, forecast=few).encode(torch.zeros(1, 1)),
            "encode with a",
        ),
        (
            lambda: Sampler(network, "ddim", 8, eta=1.0, forecast=few).sample(
                2, record=("log_prob",)
            ),
            "leave forecast out",
        ),
    ):
        with pytest.raises(ValueError, match=why):
            refused()
    # A saved plan may not have a last row without a call, as before.
    plan = Sampler(network, "ddim", 4, forecast={"calls": [2]}).plan()
    with pytest.raises(ValueError, match="the last row has a network call"):
        replace(plan, rows=plan.rows[:4])
