"""The laws of all stochastic solvers: exactly on Gaussian data, by moments on a mixture, by weak orders."""

import dataclasses
import itertools
import math
import re
from itertools import combinations_with_replacement
from statistics import NormalDist

import affine
import cld_cases
import law_cases as cases
import numpy as np
import pytest
import torch
import weak
from analytic import BY_SCHEDULE
from law_cases import Form
from oracles import moments
from oracles.solvers import oracle

from diffusion_engine import SOLVERS, Sampler, Solver
from diffusion_engine.networks.parameterisation import Parameterisation
from diffusion_engine.processes import CLD, EDM, VE, VP, Discrete, SubVP, grids

PROCESSES = [*BY_SCHEDULE.values(), cld_cases.TC, cld_cases.VARYING]
FEW = Discrete.few(4)
# Of a solver that does not suit, of a consistency model's own steps, and of a short table.
REFUSALS = re.compile("cannot run this:|steps to clean data and|steps were asked of a table")


OF_GUIDANCE = {"cfg_pp", "published"}  # tests/plan/test_cfg_pp.py: here one network is asked


@pytest.mark.parametrize("name", cases.STOCHASTIC)
def test_every_stochastic_solver_is_known(name):
    """A new one needs an oracle, which says so, and an option of any one a form that varies it."""
    oracle(name)
    varied = {option for form in cases.ALL if form.name == name for option in form.options}
    missing = {field.name for field in dataclasses.fields(SOLVERS[name])} - varied - OF_GUIDANCE
    assert not missing, f"add to law_cases.FORMS[{name!r}] a form that varies {sorted(missing)}"


def runs(form: Form, data=cases.GAUSSIAN):
    """Samplers of the form on every process that it suits, to clean data and to t_min."""
    counts = {"ddgan": (4,), "ald": (2,)}.get(form.name, (6, 30))  # 1/N takes more than 20
    grid = {"grid": "uniform"} if "step" in form.options else {}
    for process in [FEW] if form.name == "ddgan" else PROCESSES:
        for end in ("zero", "t_min"):
            for n in counts:
                try:
                    network = cases.network(form, data, process)
                    yield Sampler(network, form.name, n, end=end, **grid, **form.options)
                    break
                except ValueError as error:
                    if not REFUSALS.search(str(error)):
                        raise


@pytest.mark.parametrize("form", cases.ALL, ids=str)
def test_law_on_gaussian_data(form):
    """Mean and covariance of all that the network reads and of the end, jointly, to rounding."""
    suited = list(runs(form))
    assert suited
    for sampler in suited:
        plan = sampler.plan()
        seen = list(affine.followed(plan, sampler.network))
        last = seen[-1].slots[sorted(plan.rows[-1].new.keys() & {*range(sampler.solver.parts)})]
        weights = np.concatenate([*(row.read for row in seen if row.read is not None), last])
        mean, spread = affine.law(weights)

        def run(draw, sampler=sampler):
            reads, ends = cases.by_loop(form, sampler, cases.GAUSSIAN, lambda: draw()[:, None])
            return [part[:, 0] for part in [*reads, *ends]]

        wanted_mean, wanted = moments.law(run, 4 * len(plan.rows) + 4)
        size = np.sqrt(np.diag(wanted) + wanted_mean**2)
        where = f"{type(sampler.network.process).__name__} to {sampler.points[-1]}"
        assert mean.shape == wanted_mean.shape, where
        # CLD's loops integrate their kernels numerically.
        assert np.abs((mean - wanted_mean) / size).max() < 1e-9, where
        assert np.abs((spread - wanted) / np.outer(size, size)).max() < 1e-9, where


# --- a mixture whose elements depend on each other ---------------------------------------------

# One false alarm in a million runs of all comparisons, half of it for each of the two kinds.
CHANCE = 0.5e-6 / len(cases.PLAIN)


def on_the_mixture(form: Form, n: int) -> Sampler:
    """Few steps, which end where noise is left: a run to clean data hides what it does with noise."""
    if form.kind.parts == 2:
        process, how = CLD(), {"times": np.linspace(1.0, 0.2, 9)}
    elif form.name == "ddgan":
        process, how = FEW, {"steps": 4}
    elif form.name == "lcm":
        process, how = BY_SCHEDULE["sd"], {"steps": 4}
    else:
        process, how = BY_SCHEDULE["vp"], {"times": np.linspace(1.0, 0.2, 7)}
    network = cases.network(form, cases.MIXTURE, process)
    return Sampler(network, form.name, batch_size=n, **how, **form.options)


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, covariance and third central moments of samples [n, d], and what every sample adds to the error
    of each: their covariance by n is the estimates' own."""
    mean = x.mean(0)
    y = x - mean
    values, parts = [*mean], [*y.T]
    spread = y.T @ y / len(x)
    for i, j in combinations_with_replacement(range(x.shape[1]), 2):
        values.append(spread[i, j])
        parts.append(y[:, i] * y[:, j] - spread[i, j])
    for i, j, k in combinations_with_replacement(range(x.shape[1]), 3):
        product = y[:, i] * y[:, j] * y[:, k]
        values.append(product.mean())
        by_mean = spread[j, k] * y[:, i] + spread[i, k] * y[:, j] + spread[i, j] * y[:, k]
        parts.append(product - values[-1] - by_mean)
    return np.array(values), np.stack(parts, axis=1)


def differences(form: Form, n: int, engine: Form | None = None) -> tuple[np.ndarray, float]:
    """z of every moment, engine against loop, and the chance of the greatest of what they all say jointly.

    engine  another form for the engine to run
    """
    sampler = on_the_mixture(form, n)
    rng = np.random.default_rng(0)
    _, ends = cases.by_loop(form, sampler, cases.MIXTURE, lambda: rng.standard_normal((n, 3)))
    made = on_the_mixture(engine or form, n).sample(n).samples.double().numpy()
    (ours, one), (theirs, other) = statistics(made), statistics(ends[0])
    spread = np.cov(one.T) / n + np.cov(other.T) / n
    gap = ours - theirs
    square = torch.tensor(gap @ np.linalg.solve(spread, gap))
    chance = torch.special.gammaincc(
        torch.tensor(len(gap) / 2.0, dtype=torch.float64), square / 2.0
    )
    return gap / np.sqrt(np.diag(spread)), float(chance)


def short(form: Form) -> Form:
    """The form, where it has too many calls for this with fewer."""
    return form._replace(options={"n_steps": 3, "snr": 0.5}) if form.name == "ald" else form


@pytest.mark.parametrize("n", [40_000, pytest.param(200_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", [short(form) for form in cases.PLAIN], ids=str)
def test_moments_on_a_mixture(form, n):
    """The engine's samples with its own normals against the loop's with numpy's, 19 moments."""
    z, chance = differences(form, n)
    bound = NormalDist().inv_cdf(1.0 - 0.5 * CHANCE / len(z))  # about 6
    assert np.abs(z).max() < bound, z
    assert chance > CHANCE, z


def test_moments_see_noise_that_is_3_percent_too_strong():
    form = Form("euler_ancestral", {})
    _, chance = differences(form, 40_000, form._replace(options={"s_noise": 1.03}))
    assert chance < CHANCE


# --- weak orders -------------------------------------------------------------------------------

# `order` is 0 where more steps do not lead to the data's law.
UNORDERED = {
    "ald": "a level's steps keep their size beside its noise",
    "cps": "a step's share of fresh noise does not shrink with it",
    "consistency": "a step is a function that was learned",
    "lcm": "a step is a function that was learned",
    "flow_map": "a step is a function that was learned",
    "scm": "a step is a function that was learned",
    "tcd": "a share of the noise is fresh in every step",
    "ddgan": "its chain has a fixed number of steps",
}
SLOW = {"heunpp2": 2}  # its weights are levels: the next order of its error is large
SMOOTH = {
    "eta",
    "variant",
    "variance",
    "kappa",
    "published",
    "s_churn",
    "s_tmin",
    "s_tmax",
    "noise_level",
    "call_before_noise",
    "flipped",
    "fresh",
    "max_order",
}
ORDERED = [
    form
    for form in cases.ALL
    if form.name not in UNORDERED
    and form.options.keys() <= SMOOTH | {"s_noise", "churn_limit"}
    and not form.options.get("variance", "").startswith("learned")
    and form.kind(**form.options).order
]


@pytest.mark.parametrize("name", cases.STOCHASTIC)
def test_what_has_no_order_says_so(name):
    order = SOLVERS[name]().order
    assert (order == 0) == (name in UNORDERED), f"{name} has order {order}: 0 goes with UNORDERED"


# Terms of order 3 are large in these: slopes come from far above, so that many steps on one process tell
# the order, or are p + b, p + b / 2, ...
MANY, LATE = {"sa_solver"}, {"seeds_3"}


@pytest.mark.parametrize("form", ORDERED, ids=str)
def test_weak_order(form):
    """Errors of the law at t_min, from the true one at t_max, on the default grids."""
    options = {k: v for k, v in form.options.items() if k in SMOOTH}  # other noise has another law
    rule = form.kind(**options)
    several = form in cases.PLAIN and form.name not in MANY
    n = 100 if rule.parts == 2 else (200 if several else 400) // rule.calls
    n *= SLOW.get(form.name, 1)
    suited = on_default_grids(rule, several)
    assert suited
    for process in suited:
        doubled = (n, 2 * n, 4 * n)[: 2 + (several and form.name in LATE)]
        errors = [weak.error(rule, process, steps) for steps in doubled]
        found = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
        slope = found[-1] if len(found) == 1 else 2.0 * found[1] - found[0]
        assert slope == pytest.approx(rule.order, abs=0.15), (
            f"{rule} on {type(process).__name__}: errors {np.array(errors)} in {doubled} steps have the "
            f"slope {slope:.2f}, not {rule.order}. Where slopes tend to it with more steps only, which "
            "weak.error tells, take more of them here for this solver, with the reason"
        )


def on_default_grids(rule: Solver, several: bool) -> list:
    """Processes that the solver suits, whose grids differ; one alone of x's where not several."""
    if rule.parts == 2:
        return [CLD(), cld_cases.VARYING]
    of_x = (VP(), SubVP(), VE(), EDM()) if several else (VP(),)
    return [p for p in of_x if not rule.objection(Parameterisation(p, (1,)), grids.points(p, 4))]


def test_levels_do_not_mend_steps_that_are_too_long():
    """Annealed Langevin dynamics, whose steps are as long beside a level's noise however many levels are."""
    rule = SOLVERS["ald"](n_steps=1, snr=0.6, denoise=False)
    errors = [weak.error(rule, VE(t_min=0.5), n) for n in (320, 640)]
    assert errors[1] > 0.95 * errors[0] > 0.3
