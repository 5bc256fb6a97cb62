"""ParaDiGMS: the steps of a run made at once, by iteration over their points (Shih et al. 2023).

A run x_{j+1} = Phi_j(x_j) + n_j, its noise n_j drawn beforehand, is a fixed point: with x^k in hand,

    x_{j}^{k+1} = x_b^k + sum_{i=b}^{j-1} [Phi_i(x_i^k) - x_i^k + n_i],     j in the window b+1 ... b+W,

whose calls are one call of the network. After it the window goes on behind the points that are settled, one
at the least: the worst case is the run in order. A window's points are seats of the batch; of a multistep
solver, or one of several calls a step, every call is a point (window.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor

from .. import checks
from ..executors.course import STAY, Course, Lead, Move, Seen
from ..networks.network import ScoreNetwork
from ..networks.parameterisation import Parameterisation
from ..plan import Plan
from ..processes import Point
from ..sampler.led import Run
from ..solvers import Solver
from .base import Driver
from .dealt import dealt
from .links import INCREMENTS, SECANT, SLOPES, links
from .window import Window

# Of the tolerance what a settled point may still have to move: errors of points add up and grow on the way.
SHARE = 0.1
# (window, where its points would be next [n, I, C, *pixel], how many are settled) -> where its calls are made
Mix = Callable[[Window, Tensor, int], Tensor]


@dataclass(frozen=True)
class ParaDiGMS(Driver):
    """Picard iteration over a sliding window of a run's calls.

    window      calls at a time; None for all of the run
    tolerance   above 0: of the end, the root mean square of its distance to that of the run in order. A point
                is settled once it moves by less than a tenth of it, in units of sqrt(alpha^2 + sigma^2)
    slope       of the predictions in the iteration: "secant", "frozen", or "increments" as published, for
                solvers that keep nothing but x (window.py)
    max_rounds  after so many the run ends where the points are; None for as many as it takes
    across      a window's points are dealt to the processes that torchrun started, which all make the run
    """

    name: ClassVar[str] = "paradigms"
    source: ClassVar[str] = "Shih et al. 2023, algorithm 1"
    leads: ClassVar[bool] = True

    window: int | None = None
    tolerance: float = 1e-3
    slope: str = SECANT
    max_rounds: int | None = None
    across: bool = False

    def __post_init__(self) -> None:
        calls = "a window is a whole number of calls, 1 or more, or None for all of the run"
        checks.settle(self, "window", checks.whole, 1, calls)
        checks.settle(self, "tolerance", checks.number, "a tolerance is a number above 0")
        if not self.tolerance or self.tolerance < 0.0:
            raise ValueError(f"tolerance={self.tolerance}: a tolerance is a number above 0")
        checks.one_of("slope", self.slope, SLOPES)
        checks.settle(self, "max_rounds", checks.whole, 1, "rounds are a whole number, 1 or more")
        checks.settle(self, "across", checks.flag)

    def network(self, network: ScoreNetwork) -> ScoreNetwork:
        return dealt(network) if self.across else network

    def plan(
        self, solver: Solver, network: Parameterisation, points: Sequence[Point], start: str,
        clip: tuple[float, float] | None,
    ) -> Plan:  # fmt: skip
        made = super().plan(solver, network, points, start, clip)
        if self.window is not None and self.window > made.nfe:
            raise ValueError(
                f"window={self.window}: this run makes {made.nfe} calls; give a window of {made.nfe} at "
                "most, or None for all of the run"
            )
        if self.slope == INCREMENTS and made.slots > 1:
            raise ValueError(
                f"slope='increments' is of solvers that keep nothing but x, and {solver.name!r} keeps "
                f"{made.slots} states; use slope='secant' or 'frozen'"
            )
        return made

    def courses(self, runs: Sequence[Run]) -> list[Course]:
        made = []
        for run in runs:
            width = self.window or run.plan.nfe
            begins = 1 + max(run.plan.rows[0].new)
            seat = run.seat(max(begins, run.plan.inputs))
            made.append(Course(self._iterate(run, width), [seat] * width))
        return made

    def mixing(self) -> Mix:
        """What is made of an iteration's points: they themselves."""
        return lambda window, after, settled: after

    def _iterate(self, run: Run, width: int) -> Lead:
        plan, mix, enough = run.plan, self.mixing(), SHARE * self.tolerance
        seen = yield [Move(plan.rows[0], STAY)] * width
        first: Seen = seen[0]
        window = Window(
            links(plan), width, first.slots, self.slope, first.normal, run.job.mask, run.job.known
        )
        shown, rounds, evaluations = STAY, 0, 0
        while True:
            here = window.links[window.base : window.base + len(window)]
            for own, u in zip(seen, window.read, strict=False):
                own.slots[: len(u)].copy_(u)
            thens = [link.then for link in here] + [STAY] * (width - len(here))
            seen = yield [Move(STAY if j else shown, then) for j, then in enumerate(thens)]
            rounds, evaluations = rounds + 1, evaluations + sum(len(t.entries) for t in thens)
            window.evaluate([own.outs for own in seen[: len(here)]])
            swept, after = window.sweep()
            away = window.moved(after)
            settled = next((j for j, a in enumerate(away) if j and a > enough), len(away))
            converged = settled == len(away) == len(window.links) - window.base
            if converged or rounds == self.max_rounds:
                break
            window.slide(settled, swept, mix(window, after, settled))
            shown = replace(thens[0], state=window.links[window.base].at)
        seen[0].slots[0].copy_(window.beyond(swept[-1])[0])
        yield [
            Move(replace(thens[0], state=plan.rows[-1].state) if not j else STAY, None)
            for j in range(width)
        ]
        return self._report(plan, rounds, evaluations, converged)

    def _report(self, plan: Plan, rounds: int, evaluations: int, converged: bool) -> dict[str, Any]:
        """rounds of batched calls, evaluations of the network, calls that the run in order makes, the
        speed-up where a batch takes as long as one sample, the evaluations as multiples of the run's own,
        and whether all points are settled."""
        return {
            "rounds": rounds,
            "evaluations": evaluations,
            "calls": plan.nfe,
            "speedup": plan.nfe / rounds,
            "cost": evaluations / plan.evaluations,
            "converged": converged,
        }
