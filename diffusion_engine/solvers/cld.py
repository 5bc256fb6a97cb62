"""What solvers of CLD share, Euler-Maruyama's method for its SDE and Heun's for its ODE.

In the time that a sampler counts, tau = t_max - t, and with s_v the score of the velocity,

    dx = -v / M beta dtau,   dv = (x + Gamma v / M + 2 Gamma s_v) beta dtau + sqrt(2 Gamma beta) dw

and the probability flow ODE has Gamma s_v, and no dw (Dockhorn et al. 2022). Slot 0 is x
and slot 1 is v; `raw` is the network's output, of which s_v is made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from ..networks.parameterisation import Parameterisation
from ..networks.prediction import Velocity
from ..plan import Plan, Row
from ..plan.linear import Linear, normal, raw, slot, x
from ..processes import CLD, Point
from ..processes.cld import Covariance, gathered
from .base import Points, Solver, Update, refuse_unsuited, row_of, spans_of, steps

State = dict[int, Linear]
OUTPUT = (1.0,)  # raw is the network's first channel block


@dataclass(frozen=True)
class System:
    """A process of CLD and what a network of it predicts."""

    process: CLD
    prediction: Velocity

    def score(self, at: Point, v: Linear) -> Linear:
        """s_v of the state with this velocity, `raw` being the network's output."""
        on_v, on_output = self.prediction.score(self.process, at.t)
        return on_v * v + on_output * raw

    def rate(self, at: Point, v: Linear) -> tuple[float, Linear]:
        """(kappa, r) with s_v + v / M = kappa v + r: the part that the kernel alone knows, and the rest."""
        base = 1.0 / float(self.process.covariance(at.t).vv)
        return 1.0 / self.process.mass - base, self.score(at, v) + base * v

    def between(self, s: Point, t: Point) -> float:
        """The integral of beta from t to s."""
        return float(self.process.integral(s.t) - self.process.integral(t.t))


class CLDSolver(Solver):
    """A rule for [x, v]. Subclasses write `rows`; a last point without noise is the final denoising

        x <- x - t_min beta(t_min) v / M

    (a step of Euler's method to t = 0), which the last row does: it needs no network.
    """

    parts: ClassVar[int] = 2
    differs: ClassVar[str] = "the final denoising calls no network, whose output x does not use"
    exact: ClassVar[bool] = False  # plans take the network's score, not its x0

    def rows(self, system: System, points: Points) -> Iterator[Update | Row]:
        """The rows after the first, without the final denoising; a Row is one without a network call."""
        raise NotImplementedError

    def lead(self, system: System, points: Points) -> Point:
        """Up to where the first row moves the state by `flow`."""
        return points[0]

    def plan(
        self,
        parameterisation: Parameterisation,
        points: Points,
        start: str = "prior",
        clip: tuple[float, float] | None = None,
    ) -> Plan:
        refuse_unsuited(self, parameterisation, points)
        process, rule = parameterisation.process, parameterisation.rule
        assert isinstance(process, CLD) and isinstance(rule, Velocity), "checked above"
        if start == "state" and points[-1].t < points[0].t < process.t_max:
            raise ValueError(
                f"a given state at t={points[0].t:g} has a velocity, which x does not tell; give [x, v] on "
                f"the channel axis, a clean image and start=, or a state at t={process.t_max:g}"
            )
        if clip is not None:
            raise ValueError(
                f"clip={clip} bounds an estimate of x0, which steps of [x, v] are not made of; leave it out, "
                f"or give clip=None"
            )
        system = System(process, rule)
        through = points[:-1] if points[-1].sigma == 0.0 else points
        rows = [first_row(process, through[0], start, self.lead(system, through))]
        for i, update in enumerate(self.rows(system, through), 1):
            row = update if isinstance(update, Row) else row_of(update, parameterisation, clip, i)
            rows.append(replace(row, key=i, spans=spans_of(row, rows)))
        if len(through) < len(points):
            rows[-1] = denoise(process, rows[-1], through[-1], points[-1])
        return Plan(tuple(rows), self.name, self.exact)

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        if len(points) == 2 and points[-1].sigma == 0.0:
            return (
                "its one step is the final denoising, which calls no network; ask for 2 steps or more, or "
                "for end='t_min'"
            )
        return None


def flow(process: CLD, b: float) -> tuple[np.ndarray, np.ndarray]:
    """What dx = -v / M beta, dv = (x - Gamma v / M) beta + noise does to (x, v) while beta integrates to b:
    the matrix of the mean and the covariance of the noise. It preserves the prior."""
    m, y = math.sqrt(process.mass), 2.0 * b / math.sqrt(process.mass)
    mean = np.array([[1.0 + 0.5 * y, -0.5 * y / m], [0.5 * y * m, 1.0 - 0.5 * y]])
    noise = gathered(y)
    return math.exp(-0.5 * y) * mean, Covariance(noise.xx, -m * noise.xv, m * m * noise.vv).matrix


def drawn(x_mean: Linear, v_mean: Linear, covariance: np.ndarray) -> State:
    """The state of these means and this covariance, from both normals of a row.

    Of short flows L21 : L22 is -sqrt(3) : 1 and L11 of higher order, so that with noise="brownian" the
    increments -sqrt(3) / 2 dW0 + dW1 / 2 of v come from one motion, whatever the steps.
    """
    l11, l21, l22 = map(float, Covariance.of(covariance).cholesky)
    return {0: x_mean + l11 * normal(0), 1: v_mean + l21 * normal(0) + l22 * normal(1)}


def flown(process: CLD, b: float, v: Linear) -> State:
    """The state after `flow`, from x and a new v."""
    a, noise = flow(process, b)
    return drawn(a[0, 0] * x + a[0, 1] * v, a[1, 0] * x + a[1, 1] * v, noise)


def first_row(process: CLD, at: Point, start: str, to: Point) -> Row:
    """Row 0: the state at a point, then `flow` up to another.

    start  as in Solver.plan; "state" draws the velocity of x, from the prior at the process's end and else
           from its law given that x is clean; "whole" has it in slot 1
    """
    std = math.sqrt(process.mass)
    if start == "prior":  # flow preserves it
        return Row(call=None, new={0: normal(0), 1: std * normal(1)}, state=to)
    b = float(process.integral(at.t) - process.integral(to.t))
    if start == "whole":
        return Row(call=None, new=flown(process, b, slot(1)), state=to)
    mean, covariance = np.array([1.0, 0.0]), np.diag([0.0, process.mass])
    if start == "image":
        mean, covariance = np.array(process.mean(at.t)), process.covariance(at.t).matrix
    elif at.t < process.t_max:
        mean[1], covariance[1, 1] = process.mean(at.t)[1], process.covariance(at.t).vv
    a, noise = flow(process, b)
    moved = a @ mean
    new = drawn(float(moved[0]) * x, float(moved[1]) * x, a @ covariance @ a.T + noise)
    return Row(call=None, new=new, state=to)


def denoise(process: CLD, row: Row, s: Point, clean: Point) -> Row:
    """The row with the final denoising behind it, which leaves no velocity."""
    step = (s.t - clean.t) * float(process.beta(s.t)) / process.mass
    return replace(row, new={0: row.new[0] - step * row.new[1]}, state=clean)


@dataclass(frozen=True)
class CLDEulerMaruyama(CLDSolver):
    """Both parts of the state from the old ones, beta and score at the start of the step."""

    name: ClassVar[str] = "cld_em"
    source: ClassVar[str] = "Dockhorn et al. 2022, the generative SDE"

    @property
    def stochastic(self) -> bool:
        return True

    def rows(self, system: System, points: Points) -> Iterator[Update | Row]:
        process, v = system.process, slot(1)
        for s, t in steps(points):
            d = (s.t - t.t) * float(process.beta(s.t))
            pull = x + process.friction * (v / process.mass + 2.0 * system.score(s, v))
            noise = math.sqrt(2.0 * process.friction * d) * normal(0)
            new = {0: x - d / process.mass * v, 1: v + d * pull + noise}
            yield Update(s, new, t, (0, 1), raw=OUTPUT)


@dataclass(frozen=True)
class CLDHeun(CLDSolver):
    """Heun's method in t for the probability flow ODE, two calls a step."""

    name: ClassVar[str] = "cld_ode"
    source: ClassVar[str] = "Dockhorn et al. 2022, the probability flow ODE"
    differs: ClassVar[str] = (
        "steps of fixed size where the paper's code adapts them (RK45); the final denoising calls no "
        "network, whose output x does not use"
    )
    calls: ClassVar[int] = 2
    order = 2

    def rows(self, system: System, points: Points) -> Iterator[Update | Row]:
        for s, t in steps(points):
            d = s.t - t.t
            at_s = self.slope(system, s, x, slot(1))
            middle = {k: slot(k) + 0.5 * d * at_s[k] for k in (0, 1)}
            guess = {2 + k: slot(k) + d * at_s[k] for k in (0, 1)}
            yield Update(s, middle | guess, None, (0, 1), raw=OUTPUT)
            at_t = self.slope(system, t, slot(2), slot(3))
            new = {k: slot(k) + 0.5 * d * at_t[k] for k in (0, 1)}
            yield Update(t, new, t, (2, 3), raw=OUTPUT)

    @staticmethod
    def slope(system: System, at: Point, x: Linear, v: Linear) -> State:
        """d(x, v) / dtau of the ODE."""
        process = system.process
        beta = float(process.beta(at.t))
        pull = x + process.friction * (v / process.mass + system.score(at, v))
        return {0: -beta / process.mass * v, 1: beta * pull}
