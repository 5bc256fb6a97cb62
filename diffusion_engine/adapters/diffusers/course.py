"""A scheduler's run before anyone makes it: levels, labels and plans. Host only and immutable, so that the
runs of all threads share one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from ...ops.philox import STATE
from ...plan import Plan, Row
from ...plan.linear import x
from ...processes import FlowMatching, Point
from ...solvers import Solver
from .like import Like
from .told import NOTHING, Asked, asked_of_ddim

Array = np.ndarray


@dataclass(frozen=True)
class Call:
    """What the host has to know of a row: the slot its network call reads, the normals it draws, and the
    slot that the call after it reads, or x behind the last."""

    read: int
    draws: tuple[int, ...]
    then: int


@dataclass(frozen=True, eq=False)
class Leg:
    """The plan of a run that begins at one of the calls, and what the host knows of its rows.

    plan    rows[0] is not run: the sample that a scheduler is given is the state it would leave
    calls   of the rows after it
    solver  that the plan is of
    """

    plan: Plan
    calls: tuple[Call, ...]
    solver: Solver


@dataclass(frozen=True, eq=False)
class Course:
    """The run of a solver over the points of a scheduler.

    like    the scheduler: points, labels and what its networks predict
    again   makes it with a strength, and with what is passed to `step`
    named   the solver in place of the scheduler's own; None for that
    labels  [calls] of every network call, int64 where the class tells whole timesteps, else float32
    levels  of every call
    scales  of every call what its network's input is of x; None where it is x
    steps   call -> the point it begins at, of the calls that begin a step
    """

    like: Like
    again: Callable[..., Like]
    named: Solver | None
    labels: Array = field(init=False)
    levels: tuple[Point, ...] = field(init=False)
    scales: tuple[float, ...] | None = field(init=False)
    steps: dict[int, int] = field(init=False)
    _legs: dict[tuple[int, Asked], Leg] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first, *rows = self.leg(0, NOTHING).plan.rows
        calls = [row.call for row in rows if row.call is not None]
        labels = np.array([call.label for call in calls])
        told_whole = not (self.like.scaled or self.like.name.startswith("FlowMatch"))
        whole = told_whole and bool((labels == np.rint(labels)).all())
        scales = [call.c_in[0] for call in calls]
        place = {point: k for k, point in enumerate(self.like.points)}
        before = enumerate((first, *rows[:-1]))
        vars(self).update(
            labels=labels.astype(np.int64 if whole else np.float32),
            levels=tuple(call.at for call in calls),
            scales=tuple(scales) if any(scale != 1.0 for scale in scales) else None,
            steps={call: place[row.state] for call, row in before if row.state in place},
        )

    @property
    def solver(self) -> Solver:
        """What steps from one point to the next."""
        return self.like.solver if self.named is None else self.named

    @property
    def sigmas(self) -> list[float]:
        """sigma / alpha of every call and of the end; sigma on straight paths, as diffusers says them."""
        flow = isinstance(self.like.process, FlowMatching)
        ends = (*self.levels, self.like.points[-1])
        return [at.sigma if flow else at.ratio for at in ends]

    def leg(self, begin: int, asked: Asked) -> Leg:
        """The run from a call on: its plan has no history at its beginning.

        asked  what is passed to every step
        Raises ValueError where the call is within a step, or the solver begins otherwise than it goes on.
        """
        key = (begin, asked)
        if key not in self._legs:
            self._legs[key] = self._made(begin, asked)
        return self._legs[key]

    def _asked(self, step: int, asked: Asked) -> Solver:
        """The solver of a run from a point on. What a scheduler does may depend on where it begins."""
        if self.named is not None:
            return asked_of_ddim(self.named, asked) if asked else self.named
        if not (step or asked):
            return self.like.solver
        n = len(self.like.points) - 1
        strength = {"strength": (n - step + 0.5) / n} if step else {}
        return self.again(**strength, **dict(asked)).solver

    def _repeated(self, begin: int) -> bool:
        """Whether a call is the second of PLMS' first step, at the level where its second begins: pipelines
        count a step for each timestep of a solver of one call, and begin there."""
        after, inside = begin + 1, begin not in self.steps
        at_once = self.solver.calls == 1 and inside and after in self.steps
        return at_once and self.levels[begin] == self.levels[after]

    def _made(self, begin: int, asked: Asked) -> Leg:
        like, step = self.like, 0
        again = begin + 1 if begin and self._repeated(begin) else begin
        if begin:
            if again not in self.steps:
                raise ValueError(
                    f"begin_index={begin} is within a step of {self.solver.name!r}, which makes several "
                    f"calls: begin at one of {', '.join(map(str, self.steps))}"
                )
            step = self.steps[again]
        solver = self._asked(step, asked)
        network = like.parameterisation((1,))  # rows know no shape
        if (variance := getattr(solver, "variance", None)) in ("learned", "learned_range"):
            network = replace(network, variance=variance)
        plan = solver.plan(network, like.points[step:], "state", like.clip)
        if set(plan.rows[0].new[0]) != {("S0", 1.0)}:
            raise ValueError(
                f"solver {solver.name!r} puts noise into the sample before the network is called for the "
                "first time, which no scheduler is asked for: give it options without churn there"
            )
        rows = [replace(row, key=STATE | row.key) for row in plan.rows]
        end = like.points[-1]
        if like.scaled and end.sigma > 0.0:  # what the class returns is x / alpha
            rows[-1] = replace(
                rows[-1],
                new=rows[-1].new | {0: rows[-1].new[0] / end.alpha},
                state=Point(end.t, 1.0, end.ratio),
            )
        if again > begin:  # its call leaves the sample as it is
            rows.insert(1, replace(rows[1], new={0: x}, state=None))
        plan = plan.replace_rows(rows)
        if begin and [row.call.at for row in rows[1:] if row.call] != list(self.levels[begin:]):
            raise ValueError(
                f"solver {solver.name!r} takes other calls at the beginning of a run than within it, so that "
                f"it cannot begin at begin_index={begin}: give another solver, or begin at 0"
            )
        return Leg(plan, tuple(map(_call, rows[1:], [*rows[2:], None])), solver)


def _call(row: Row, after: Row | None) -> Call:
    assert row.call is not None, "every row of a solver's plan but the first has a call"
    draws = tuple(m for m in range(2) if row.draws(m))
    return Call(row.call.read[0], draws, after.call.read[0] if after and after.call else 0)
