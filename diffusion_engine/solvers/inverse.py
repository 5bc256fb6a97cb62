"""Encoding: the ODE of a deterministic solver run from data to noise, as a plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan import Plan
from ..plan.linear import Linear, denoised, slot, x
from ..processes import GaussianProcess, Point, grids
from . import SOLVERS, Solver, Update
from .base import Points, transfer


def encoding(
    solver: Solver,
    points: Points,
    network: Parameterisation,
    start: float | None,
    clip: tuple[float, float] | None,
    refine: int,
    kind: str = "state",
) -> Plan:
    """The plan that takes a state at time `start` up to the first of the points of a sampler.

    start   None is the process's t_min
    refine  0 runs the solver's own steps upwards; k solves for the states from which its steps lead
            down, by k fixed-point iterations a step
    kind    what is given of the state, as in Solver.plan: "state" or "whole"
    Raises ValueError where the solver is stochastic, start is no time below the first, or refine does
    not suit the solver.
    """
    process = network.process
    suited = (
        "'cld_exp' or 'cld_ode'" if process.parts > 1 else "'ddim', 'heun', 'dpmpp_2m' or 'genie'"
    )
    if solver.stochastic:
        raise ValueError(_fresh(solver, suited))
    if isinstance(refine, bool) or not isinstance(refine, int) or refine < 0:
        raise ValueError(f"refine={refine!r}: a whole number of iterations a step, 0 for none")
    if refine and process.parts > 1:
        raise ValueError(
            f"refine={refine} inverts steps of x alone, and {solver.name!r} moves a velocity too: encode "
            "with refine=0"
        )
    first = grids.point_at(process, points, process.t_min if start is None else start)
    if first.sigma == 0.0:
        raise ValueError(
            f"start={first.t:g} is clean data, and the ODE has no slope there; start above"
        )
    rising = (first, *(p for p in reversed(points) if p.lam < first.lam))
    if len(rising) < 2:
        raise ValueError(
            f"start={first.t:g} lies at or before the sampler's first time t={points[0].t:g}; encode from a "
            "time nearer to data"
        )
    if type(solver) not in SOLVERS.values() and _draws(solver, network, (points, rising)):
        raise ValueError(_fresh(solver, suited))
    rule = Inverse(solver, refine) if refine else solver
    return rule.plan(network, rising, kind, clip)


def _draws(solver: Solver, network: Parameterisation, ways: Iterable[Points]) -> bool:
    """Whether a user's solver draws noise on either way, whatever it says of itself: of a whole state that is
    every normal of a plan."""
    whole = "whole" if network.process.parts > 1 else "state"
    return any(solver.plan(network, way, whole).normals for way in ways)


def _fresh(solver: Solver, suited: str) -> str:
    return (
        f"solver {solver.name!r} adds fresh noise, so that no latent leads back to an image: encode with a "
        f"deterministic one, such as {suited}"
    )


@dataclass(frozen=True)
class Inverse(Solver):
    """The inverse of a solver's steps: x_s such that its step from s ends at the given x_t.

    A step is x_t = a x_s + c eps(x_s, s) and what its derivative adds; x_s <- x_s + (x_t - step(x_s)) / a
    is iterated from a first-order guess. The last iteration of a step makes the guess of the next one too, so
    that a run of N steps takes 1 + N refine calls.

    Slots: 0 the iterate, which the network reads, 1 the state x_t.
    """

    solver: Solver
    refine: int
    name: ClassVar[str] = "inverse"

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        down = self._steps(process, points)
        t, s = points[:2]
        yield Update(t, {0: transfer(t, s, x, denoised), 1: x}, None)
        for step, s, after in zip(down, points[1:], (*points[2:], None), strict=True):
            better = x + (slot(1) - step.new[0]) / _of_x(step.new[0], s)
            iteration = Update(s, {0: better}, None, raw=step.raw, slope=step.slope)
            yield from [iteration] * (self.refine - 1)
            if after is None:
                yield replace(iteration, state=s)
            else:
                guess = transfer(s, after, better, denoised)
                yield replace(iteration, new={0: guess, 1: better})

    def _steps(self, process: GaussianProcess, points: Points) -> list[Update]:
        """The solver's own steps between the points, the cleanest first."""
        made = list(self.solver.updates(process, tuple(reversed(points))))
        alone = {"S0", "D", "raw", "eps", "U"}
        simple = len(made) == len(points) - 1 and all(
            set(step.new) == {0}
            and step.read == (0,)
            and not step.churn
            and {symbol for symbol, _ in step.new[0]} <= alone
            for step in made
        )
        if not simple:
            raise ValueError(
                f"refine={self.refine} inverts steps of one call that need nothing but the state, as those "
                f"of 'ddim', 'euler' and 'genie'; {self.solver.name!r} has others: encode with refine=0"
            )
        return made[::-1]


def _of_x(step: Linear, s: Point) -> float:
    """The weight of x in a step, written with eps in place of estimates of x0."""
    return step["S0"] + ((step["D"] + step["U"]) / s.alpha if s.alpha > 0.0 else 0.0)
