"""STORK: stabilized Runge-Kutta whose stages take slopes from a Taylor expansion of past calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, x
from ..processes import Discrete, GaussianProcess, Point
from .adams import integrals, lagrange
from .base import Points, Ring, Solver, Update, eps_of, first_order_only, off_time, steps, transfer
from .coordinates import FLOW, coordinates

NAMES = ("auto", "flow", "edm", "time")
STARTS = ("euler", "half")
Array = np.ndarray


@dataclass(frozen=True)
class Form:
    """The ODE dy / du = rate(u) y + pull(u) m, y = x / scale, m a call's slope or eps.

    u, scale, m  of a point
    at           the point of a u
    finite       whether all of it is finite in a step from s to t
    rate, pull   of an array of u
    """

    u: Callable[[Point], float]
    scale: Callable[[Point], float]
    m: Callable[[Point], Linear]
    at: Callable[[float], Point]
    finite: Callable[[Point, Point], bool]
    rate: Callable[[Array], Array] = np.zeros_like
    pull: Callable[[Array], Array] = np.ones_like


def form_of(name: str, process: GaussianProcess, points: Points) -> Form:
    """ "flow": velocities in a flow's t; "edm": eps in sigma / alpha; "time": eps in the ODE of x in t."""
    if name == "time":
        return Form(
            u=lambda p: p.t,
            scale=lambda p: 1.0,
            m=eps_of,
            at=process.at,
            finite=lambda s, t: not first_order_only(s, t),
            rate=process.drift,
            pull=lambda t: process.diffusion(t) / (2.0 * process.sigma(t)),
        )
    frame = coordinates(name, points)
    return Form(
        u=frame.level,
        scale=frame.scale,
        m=lambda p: frame.slope(p, x),
        at=lambda level: process.at_ratio(frame.ratio(level)),
        finite=lambda s, t: frame.finite(s) and frame.level(t) < math.inf,
    )


def gegenbauer(
    form: Form, nodes: Sequence[float], end: float, stages: int, published: bool
) -> tuple[float, Array]:
    """(a, w) of y' = a y + sum w_i m_i after a step from nodes[0] of Runge-Kutta-Gegenbauer's second-order
    method (Skaras et al. 2021), its slopes made of the polynomial through m_i at the nodes."""
    h, start = end - nodes[0], np.eye(1 + len(nodes))[0]
    weights, places = _method(stages)
    u = nodes[0] + h * (_published_nodes(stages) if published else places)[:stages]
    rate, pull = h * form.rate(u), h * form.pull(u)
    pulled = np.array([0.0 * u, *(pull * lagrange(nodes, j, u) for j in range(len(nodes)))]).T
    y = [start]
    first = rate[0] * start + pulled[0]
    for j, (mu, nu, step, gamma) in enumerate(weights):
        slope = rate[j] * y[j] + pulled[j]
        y.append(mu * y[j] + nu * y[j - 1] + (1.0 - mu - nu) * start + step * slope + gamma * first)
    return float(y[-1][0]), y[-1][1:]


@cache
def _method(stages: int) -> tuple[list[tuple[float, float, float, float]], Array]:
    """Of stages 1, 2, ... the weights of the one before, the one before that, its slope and the first slope;
    and all places in a step, the row sums: what they make of y' = 1."""
    b = [1.0, 1.0 / 3.0]
    b += [
        4.0 * (j - 1) * (j + 4) / (3.0 * j * (j + 1) * (j + 2) * (j + 3))
        for j in range(2, stages + 1)
    ]
    w = 6.0 / ((stages + 4) * (stages - 1))
    made, c = [(1.0, 0.0, w, 0.0)], [0.0, w]
    for j in range(2, stages + 1):
        mu, nu = (2 * j + 1) * b[j] / (j * b[j - 1]), -(j + 1) * b[j] / (j * b[j - 2])
        gamma = -mu * w * (1.0 - 0.5 * j * (j + 1) * b[j - 1])
        made.append((mu, nu, mu * w, gamma))
        c.append(mu * c[j - 1] + nu * c[j - 2] + mu * w + gamma)
    return made, np.array(c)


def _published_nodes(stages: int) -> Array:
    """Those of the published code."""
    j = np.arange(2.0, stages + 1.0)
    return np.array([0.0, 4.0 / 3.0, *(j**2 + j - 2.0)]) / (stages**2 + stages - 2.0)


@dataclass(frozen=True)
class STORK(Solver):
    """A Runge-Kutta step of many stages, one of which is a call: the Taylor polynomial of the calls so far
    gives the others their slopes.

    max_order  2 has the Runge-Kutta-Gegenbauer method's stages; 4 integrates the polynomial exactly, as
               ROCK4's do, whose weights are right up to cubes: Adams-Bashforth's step of taylor + 1 calls
    taylor     degree of the polynomial, 1 to 3; the first steps have that of the calls so far
    stages     of a step of max_order=2, from 2
    start      the first step: "euler", or "half", two half steps, of a call more
    published  the stages lie where the published code has them, and order 2 is lost
    coordinates  "flow": velocities in flow matching's t; "edm": eps in sigma / alpha; "time": eps in t, with
               the ODE's drift in every stage; "auto": flow where alpha + sigma = 1, else time where the
               process says its drift, with max_order=2, and else edm
    """

    name: ClassVar[str] = "stork"
    source: ClassVar[str] = "Tan et al. 2025 (STORK)"
    differs: ClassVar[str] = (
        "derivatives are those of the polynomial through the last calls, where the published code's hold for "
        "equal steps (its third-degree ones for none), and stages lie at their row sums (published=True)"
    )
    exact: ClassVar[bool] = False
    keeps_noise: ClassVar[bool] = False
    max_order: int = 2
    taylor: int = 2
    stages: int = 50
    start: str = "euler"
    published: bool = False
    coordinates: str = "auto"

    def __post_init__(self) -> None:
        checks.one_of("max_order", self.max_order, (2, 4))
        checks.one_of("taylor", self.taylor, (1, 2, 3))
        checks.one_of("start", self.start, STARTS)
        checks.one_of("coordinates", self.coordinates, NAMES)
        if not 2 <= self.stages <= 1000:
            raise ValueError(f"stages={self.stages}: a step has 2 to 1000")
        if self.max_order == 4 and self.coordinates == "time":
            raise ValueError(
                "max_order=4 with coordinates='time' needs the tables of ROCK4; use max_order=2, or 'edm'"
            )

    @property
    def order(self) -> int:
        # One step of order p leaves the run no more than order p + 1.
        return min(self.asymptotic, 2)

    @property
    def asymptotic(self) -> int:
        return self.taylor + 1 if self.max_order == 4 else 2 - self.published

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        process = parameterisation.process
        if self.chosen(process, points) != "time":
            return None
        if not _smooth(process):
            return (
                f"{type(process).__name__} has no drift(t) between its times; use coordinates='edm'"
            )
        return off_time(process, points)

    def chosen(self, process: GaussianProcess, points: Points) -> str:
        """The coordinates of a run."""
        if self.coordinates != "auto":
            return self.coordinates
        if coordinates("auto", points) is FLOW:
            return "flow"
        return "time" if self.max_order == 2 and _smooth(process) else "edm"

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        name = self.chosen(process, points)
        form, ring = form_of(name, process, points), Ring(self.taylor, infinite=name != "edm")
        for i, (s, t) in enumerate(steps(points)):
            past = list(ring.past)
            kept = {ring.store(s): form.m(s)} if i + 2 < len(points) or i == 0 else {}
            if not form.finite(s, t):
                yield Update(s, {0: transfer(s, t, x, denoised)} | kept, t)
            elif i == 0 and self.start == "half":
                middle = form.at(0.5 * (form.u(s) + form.u(t)))
                yield Update(s, {0: self.moved(form, s, middle, [])} | kept, middle)
                yield Update(middle, {0: self.moved(form, middle, t, ring.past)}, t)
            else:
                yield Update(s, {0: self.moved(form, s, t, past)} | kept, t)

    def moved(self, form: Form, s: Point, t: Point, past: list[tuple[Point, Linear]]) -> Linear:
        """x at t, of the call at s and past ones."""
        nodes, end = [form.u(p) for p, _ in [(s, x), *past]], form.u(t)
        if self.max_order == 4:
            a, w = 1.0, np.array(integrals(nodes, nodes[0], end, np.ones_like, lambda u: u))
        else:
            a, w = gegenbauer(form, nodes, end, self.stages, self.published)
        calls = [form.m(s), *(m for _, m in past)]
        mean = sum((float(wi) * m for wi, m in zip(w, calls, strict=True)), Linear())
        return form.scale(t) * (a / form.scale(s) * x + mean)


def _smooth(process: GaussianProcess) -> bool:
    """Whether a law has a drift at any time, which a table's is but between two of its own."""
    return not isinstance(process, Discrete) and type(process).drift is not GaussianProcess.drift
