"""`order` and `asymptotic` of every solver, by slopes of its error on the probability flow ODE.

Plans are run in float64 (interpreter.py) for the exact network of a mixture, against an adaptive integrator
(oracles/ode.py). The ranges of time are those where the network changes: at the far ends of a whole run it
hardly does, and a first or last step of low order shows from thousands of steps on alone.
"""

import itertools
import math
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import pytest
from interpreter import run
from oracles import ode
from oracles.cld import Law
from oracles.genie import slope
from oracles.problems import Mixture

from diffusion_engine import SOLVERS, ScoreNetwork, Solver
from diffusion_engine.processes import CLD, EDM, VE, VP, FlowMatching, GaussianProcess, Point, grids
from diffusion_engine.solvers import solver
from diffusion_engine.solvers.dpm_solver import DPMSolver3
from diffusion_engine.solvers.heun import Heun

STEPS = (12, 24, 48, 96)
# What terms beyond those of `limit` leave in the slowest is 0.07; another order is a whole one away.
MARGIN = 0.1
DATA = Mixture([0.4, 0.6], [-0.8, 0.6], [0.5, 0.4])
LAMS = (-0.5, 0.5)  # log(alpha / sigma) of first and last times


def between(kind: type[GaussianProcess]) -> GaussianProcess:
    t_max, t_min = (float(kind().t_of_lam(lam)) for lam in LAMS)
    return kind(t_min=t_min, t_max=t_max)


class OfX:
    """Seven states of x at the first time of a process, and where its ODE leads them."""

    def __init__(self, process: GaussianProcess) -> None:
        self.process, self.exact = process, cache(self.end)
        self.network = ScoreNetwork(
            lambda x, t: x, process, (1,), prediction="x0", derivative="exact"
        )

    @cached_property
    def start(self) -> tuple[np.ndarray, ...]:
        first = self.process.at(self.process.t_max)
        return (np.linspace(-1.5, 1.5, 7) * math.hypot(first.alpha, first.sigma),)

    def end(self, to: Point) -> tuple[np.ndarray, ...]:
        return (ode.end(DATA, *self.start, self.process.at(self.process.t_max), to),)

    def outputs(self, at: Point, count: int, x: np.ndarray) -> list[np.ndarray]:
        made = [DATA.denoised(x, at.alpha, at.sigma)]
        return made if count == 1 else [*made, slope(DATA, x / at.alpha, at.ratio)[1]]


class OfCLD(OfX):
    """Of [x, v]."""

    def __init__(self, process: CLD) -> None:
        self.process, self.exact = process, cache(self.end)
        self.law = Law(
            process.mass, process.gamma, process.beta0, process.beta1, process.numerical_eps
        )
        self.network = ScoreNetwork(lambda u, t: u, process, (1,), prediction="velocity")

    @cached_property
    def start(self) -> tuple[np.ndarray, ...]:
        return np.linspace(-1.5, 1.5, 7), np.linspace(0.8, -0.5, 7)

    def end(self, to: Point) -> tuple[np.ndarray, ...]:
        return tuple(ode.cld_end(self.law, DATA, *self.start, self.process.t_max, to.t))

    def outputs(self, at: Point, count: int, x: np.ndarray, v: np.ndarray) -> list[np.ndarray]:
        _, ((xx, xv), (_, vv)) = ode.moments(self.law, at.t)
        return [-math.sqrt(vv - xv**2 / xx) * ode.velocity_score(self.law, DATA, x, v, at.t)]


CASES = {kind.__name__: OfX(between(kind)) for kind in (VP, VE, EDM, FlowMatching)}
FROM_NOISE = OfX(FlowMatching(t_min=CASES["FlowMatching"].process.t_min))
CASES["CLD"] = OfCLD(CLD(t_min=0.1, t_max=0.3))


def case_of(rule: Solver) -> OfX:
    return CASES["CLD" if rule.parts == 2 else "VP"]


# Solvers whose order no ODE tells; what they say is the order in law.
ALWAYS_NOISE, NO_SCORE = "its noise has no switch", "its network is a student or a generator"
UNFITTED = {
    **dict.fromkeys(["ddpm", "ancestral", "ald", "vdm", "cld_em"], ALWAYS_NOISE),
    **dict.fromkeys(["sscs", "sscs_mid", "sscs_mixed", "sscs2", "sscs_exact"], ALWAYS_NOISE),
    **dict.fromkeys(["consistency", "lcm", "flow_map", "scm", "ddgan"], NO_SCORE),
    **dict.fromkeys(["consistency", "lcm", "ddgan"], NO_SCORE),
    "learned": "its calls are those of its table",  # whose slopes are those of what is written as one
}
WITHOUT_NOISE = {"eta": 0.0, "noise": False, "noise_level": 0.0}


def without_noise(name: str) -> Solver:
    """A solver with its noise turned off, where an option does that."""
    known = getattr(SOLVERS[name], "__dataclass_fields__", ())
    return solver(name, **{option: off for option, off in WITHOUT_NOISE.items() if option in known})


def fits(rule: Solver) -> bool:
    return not rule.stochastic and accepted(rule, case_of(rule))


def accepted(rule: Solver, case: OfX) -> bool:
    return not rule.objection(case.network.parameterisation, grids.points(case.process, 4))


FITTED = [name for name in SOLVERS if fits(without_noise(name))]
OF_X = [name for name in FITTED if SOLVERS[name].parts == 1]
FROM_PURE_NOISE = [name for name in OF_X if accepted(without_noise(name), FROM_NOISE)]

BOTH, STARTS = (True, False), ("euler", "heun")
SINGLESTEP = {"max_order": (1, 2, 3), "variant": ("midpoint", "heun"), "lower_order_final": BOTH}
# The options that may matter to an order, in all combinations.
OPTIONS = {
    "ddim": {"clipped_eps": BOTH},
    "dpmpp_2m": {"variant": ("midpoint", "heun"), "lower_order_final": BOTH},
    "dpmpp_2m_sde": {"variant": ("midpoint", "heun")},
    "dpmpp_3m": {
        "kappa": (1.0, 2.0), "start": STARTS, "variant": ("midpoint", "heun"), "lower_order_final": BOTH,
    },
    "dpmpp_3m_sde": {"kappa": (1.0, 2.0), "flipped": BOTH},
    "er_sde": {"max_order": (1, 2, 3), "variant": ("published", "newton")},
    "seeds_2": {"variant": ("midpoint", "heun")},
    "seeds_3": {"r_2": (2 / 3, 0.8)},
    "sa_solver": {
        "predictor_order": (3,), "corrector_order": (0, 2, 4), "lower_order_final": BOTH,
    },
    "dpm_solver_2m": {"variant": ("midpoint", "heun"), "lower_order_final": BOTH},
    "dpm_solver_3m": {
        "kappa": (1.0, 2.0), "start": STARTS, "lower_order_final": BOTH, "euler_at_final": BOTH,
    },
    "dpm_solver_sde": {"max_order": (1, 2), "variant": ("midpoint", "heun")},
    "dpm_fast": {"rest": (0, 1, 2)},
    "dpmpp_singlestep": SINGLESTEP,
    "dpm_solver_singlestep": SINGLESTEP,
    "unipc": {
        "max_order": (1, 2, 3), "variant": ("bh1", "bh2"), "corrector": BOTH, "lower_order_final": BOTH,
        "predict_x0": BOTH,
    },
    "exp_rk": {"tableau": ("res_2s", "res_3s", "etdrk4", "hochbruck_ostermann")},
    "gradient_estimation": {"gamma": (1.0, 1.5, 2.0)},
    "stork": {"max_order": (2, 4), "taylor": (1, 3), "stages": (10,)},
    "lms": {"max_order": (1, 2, 3, 4), "start": STARTS, "lower_order_final": BOTH},
    "deis": {"max_order": (1, 2, 3, 4), "start": STARTS, "variant": ("tab", "rhoab", "logrho")},
    "ipndm": {"max_order": (1, 2, 3, 4), "start": STARTS, "variable": BOTH},
    "plms": {"max_order": (1, 2, 3, 4), "variable": BOTH, "mixes": ("eps", "v")},
    "pndm": {"mixes": ("eps", "v")},
    "genie": {"afs": BOTH},
    "cld_exp": {"max_order": (1, 2, 3)},
}  # fmt: skip
COMBINATIONS = [
    pytest.param(
        name, dict(zip(OPTIONS.get(name, ()), values, strict=True)), id=" ".join([name, *map(str, values)])
    )
    for name in FITTED
    for values in itertools.product(*OPTIONS.get(name, {}).values())
]  # fmt: skip


def error(rule: Solver, case: OfX, points, held: int = 0) -> float:
    """Root mean square of what a run is off at its end; its first `held` states are set right."""
    plan = rule.plan(case.network.parameterisation, points)
    for row, slots in run(plan, case.outputs, *case.start):
        if held and row.state is not None:
            slots |= enumerate(case.exact(row.state))
            held -= 1
    off = [slots[k] - end for k, end in enumerate(case.exact(points[-1]))]
    return float(np.sqrt(np.mean(np.square(off))))


def slopes(rule: Solver, case: OfX, points_of, held: int = 0) -> list[float]:
    """log2 of what each doubling of the steps takes from the error."""
    errors = [error(rule, case, points_of(case.process, n), held) for n in STEPS]
    return [math.log2(a / b) for a, b in itertools.pairwise(errors)]


def limit(found: list[float]) -> float:
    """What slopes tend to: of an error c h^p (1 + a h) they are p + b, p + b / 2, ..."""
    return 2.0 * found[-1] - found[-2]


def check(rule: Solver, claim: int, *found: list[float]) -> None:
    """The best of the slopes tends to the claim, and the last doubling of it is nearest to that order."""
    best = max(found, key=limit)
    said = f"{rule}: slopes {np.round(best, 2)} tend to {limit(best):.2f}, not {claim}"
    assert limit(best) == pytest.approx(claim, abs=MARGIN), said
    assert best[-1] == pytest.approx(claim, abs=0.5), said


def default(rule: Solver, case: OfX):
    grid = rule.default_grid(case.process)
    return lambda process, n: grids.points(process, n, grid, "t_min")


@cache
def graded(process: GaussianProcess, n: int) -> list[Point]:
    """n equal steps in lam, and before and behind them some that double from h^3 to h and halve again: a
    first or last step of first order is then off by h^6. As many as 6 divides, so that what goes over
    several of them does so alike for every n."""
    double = 2.0 ** -np.arange(6.0 * math.ceil(math.log2(n) / 3.0), 0.0, -1.0) / n
    steps = np.concatenate([double, np.full(n, 1.0 / n), double[::-1]])
    first, last = process.at(process.t_max), process.at(process.t_min)
    part = np.cumsum(steps)[:-1] / steps.sum()
    inner = [process.at_lam(lam) for lam in first.lam + part * (last.lam - first.lam)]
    return [first, *inner, last]


@cache
def even(process: GaussianProcess, n: int) -> list[Point]:
    """n equal steps in g = sigma / alpha."""
    first, last = process.at(process.t_max), process.at(process.t_min)
    return [first, *map(process.at_ratio, np.linspace(first.ratio, last.ratio, n + 1)[1:-1]), last]


def check_order(rule: Solver, *cases: OfX) -> None:
    for case in cases or (case_of(rule),):
        check(rule, rule.order, slopes(rule, case, default(rule, case)))


def check_asymptotic(rule: Solver) -> None:
    """Between tiny steps or, for formulas of equal steps, in even ones behind exact states."""
    case = case_of(rule)
    found = [slopes(rule, case, graded)]
    if rule.parts == 1:
        found.append(slopes(rule, case, even, held=3))
    check(rule, rule.asymptotic, *found)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_without_a_slope_says_why(name):
    if name in FITTED:
        assert name not in UNFITTED, f"{name} runs on the ODE: take it out of UNFITTED"
    else:
        assert name in UNFITTED, (
            f"{name} is not run on the ODE, having noise that none of {WITHOUT_NOISE} turns off, or an "
            "objection to its process: say in UNFITTED why"
        )


def test_what_is_listed_is_there():
    assert set(UNFITTED) <= set(SOLVERS)
    assert set(OPTIONS) <= set(FITTED)


@pytest.mark.parametrize("name, options", COMBINATIONS)
def test_order(name, options):
    check_order(replace(without_noise(name), **options))


@pytest.mark.parametrize("name", OF_X)
def test_order_on_the_default_grid_of_every_process(name):
    check_order(without_noise(name), *(CASES[k] for k in ("VE", "EDM", "FlowMatching")))


@pytest.mark.parametrize("name, options", COMBINATIONS)
def test_asymptotic(name, options):
    check_asymptotic(replace(without_noise(name), **options))


@pytest.mark.parametrize("name", FROM_PURE_NOISE)
def test_order_from_pure_noise(name):
    """2 at most, the first step being of first order whatever the formula. Where steps in lam do not shrink
    there, an error of order 2 is log(n) / n^2."""
    rule, steps = without_noise(name), (STEPS[-1], 2 * STEPS[-1])
    points = default(rule, FROM_NOISE)
    a, b = (error(rule, FROM_NOISE, points(FROM_NOISE.process, n)) for n in steps)
    found = math.log2(a / b)
    order = min(rule.order, 2)
    few, many = map(math.log, steps)
    assert order - math.log2(many / few) < found < order + MARGIN


@dataclass(frozen=True)
class Overstated(Heun):
    order = 3
    asymptotic = 3


@dataclass(frozen=True)
class Understated(DPMSolver3):
    order = 2


@pytest.mark.parametrize(
    "rule", [Overstated(), Understated()], ids=lambda rule: type(rule).__name__
)
def test_a_wrong_order_is_found(rule):
    for check_of in (check_order, check_asymptotic):
        with pytest.raises(AssertionError, match="tend to"):
            check_of(rule)
