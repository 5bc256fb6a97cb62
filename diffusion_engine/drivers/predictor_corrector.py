"""Predictor-corrector sampling (Song et al. 2021, algorithms 2 and 3; appendix G).

At each time t_i, before the predictor goes on to the next, Langevin dynamics moves x at that time:

    repeat `steps` times:   g = score(x, t_i),   z ~ N(0, I)
                            e = 2 a (snr ||z|| / ||g||)^2      corrector "langevin"
                            e = 2 a (snr sigma_i)^2            corrector "ald": annealed, Song & Ermon 2019
                            x <- x + e g + sqrt(2 e) z
    predictor:              the solver's own rows from t_i to t_{i+1}, with a new call

with a = 1 - beta_i of the forward chain from t_{i+1} to t_i, and score = (alpha x0 - x) / sigma^2 of the
estimate of x0, guided and clipped as the predictor's is. The published code takes ||z|| and ||g|| as means
over the batch: rule="batch"; here the norms are a sample's own, unless one asks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from .. import checks
from ..executors.course import Course, Lead, Move, Seen
from ..networks.parameterisation import Parameterisation
from ..ops.philox import IMAGE, STATE
from ..plan import Plan, Row
from ..plan.linear import normal, x
from ..processes import VE, VP, GaussianProcess, Point
from ..sampler.led import Run
from ..solvers import Solver
from ..solvers.base import score_of
from ..solvers.sde import Predictor
from ..solvers.update import Update
from .base import Driver
from .sums import norm

CORRECTS = 1 << 29  # in the key of a corrector's normals; the predictor's keys are below


class Turn(NamedTuple):
    """A row of a run; a is the corrector's, None of a row of the predictor."""

    row: Row
    a: float | None = None


@dataclass(frozen=True)
class PredictorCorrector(Driver):
    """x <- x + e score + sqrt(2 e) z, `steps` times at each time before the solver, any, steps on.

    corrector  "langevin", e = 2 a (snr ||z|| / ||score||)^2, or "ald", e = 2 a (snr sigma)^2
    snr        the signal-to-noise ratio r; published with VE 0.16 (CIFAR-10), 0.17, 0.075 and 0.15
    steps      of the corrector at each time
    rule       norms of "langevin": a "sample"'s own, or means over a "batch", the samples of a request that
               run together, which then depend on one another

    At the last of the points nothing is corrected, nor at pure noise (alpha = 0). How a run ends is the
    solver's: `denoise` of the reverse SDE's predictors returns the mean of the last step. A report has the
    `moves` of the corrector, and the least and the most of its `steps` e / sigma^2.
    """

    name: ClassVar[str] = "predictor_corrector"
    source: ClassVar[str] = "Song et al. 2021 (score SDE), algorithms 2 to 5"
    leads: ClassVar[bool] = True
    corrector: str = "langevin"
    snr: float = 0.16
    steps: int = 1
    rule: str = "sample"

    def __post_init__(self) -> None:
        checks.one_of("corrector", self.corrector, ("langevin", "ald"))
        checks.one_of("rule", self.rule, ("sample", "batch"))
        checks.settle(self, "snr", checks.number, "the ratio is above 0, as 0.16")
        checks.settle(
            self, "steps", checks.whole, 1, "1 step of the corrector or more at each time"
        )
        if not self.snr > 0.0:
            raise ValueError(f"snr={self.snr:g}: the ratio is above 0, as 0.16")

    @property
    def together(self) -> bool:  # type: ignore[override]
        return self.rule == "batch" and self.corrector == "langevin"

    def objection(self, network: Parameterisation, points: Sequence[Point]) -> str | None:
        if network.process.parts == 1:
            return None
        return (
            f"its corrector takes the score of x, and a network of {type(network.process).__name__} says "
            "that of the velocity alone; leave the driver out"
        )

    def plan(
        self, solver: Solver, network: Parameterisation, points: Sequence[Point], start: str,
        clip: tuple[float, float] | None,
    ) -> Plan:  # fmt: skip
        made = super().plan(solver, network, points, start, clip)
        begins, n, reason = corrected(made), table(solver, points), ""
        if any(_goes_elsewhere(made.rows[i]) for i in begins):
            reason = (
                f"solver {solver.name!r} goes on from a state that it kept, which no corrector reaches; use "
                "'dpmpp_2m', 'heun' or unipc with corrector=False"
            )
        if any(kept(network.process, *ends, n) <= 0.0 for ends in begins.values()):
            reason = (
                f"step='1/N' makes beta / N reach 1 in {n} steps, and a move of the corrector has the factor "
                "1 - beta / N; take more steps, or step='grid'"
            )
        if reason:
            raise ValueError(f"driver {self.name!r} cannot run this: {reason}")
        return made

    def courses(self, runs: Sequence[Run]) -> list[Course]:
        groups = [runs] if self.together else [[run] for run in runs]
        return [self._course(group) for group in groups]

    def _course(self, runs: Sequence[Run]) -> Course:
        plan = runs[0].plan
        length = len(plan.rows) + self.steps * len(corrected(plan))
        seats = [run.seat(run.plan.slots) for run in runs]
        return Course(self._walk([self._turns(run) for run in runs]), seats, len(runs), length)

    def _turns(self, run: Run) -> Iterator[Turn]:
        """The rows of a run in order."""
        rows, begins, n = run.plan.rows, corrected(run.plan), table(run.solver, run.points)
        key = CORRECTS | rows[1].key & (IMAGE | STATE)
        for i, row in enumerate(rows):
            for _ in range(self.steps if i in begins else 0):
                s, t = begins[i]
                key += 1
                move = run.row(Update(s, {0: x + normal(0)}, s), key)
                yield Turn(move, kept(run.process, s, t, n))
            yield Turn(row)

    def _walk(self, turns: Sequence[Iterator[Turn]]) -> Lead:
        """Leads runs whose rows come in step."""
        steps: list[float] = []
        row = [next(each).row for each in turns]
        for coming in zip(*turns, strict=True):
            seen = yield list(map(Move, row, [turn.row for turn in coming]))
            row = [turn.row for turn in coming]
            if (a := coming[0].a) is not None:
                assert row[0].call is not None
                at = row[0].call.at
                e = self._step(a, at, seen)
                new = {0: x + e * score_of(at) + math.sqrt(2.0 * e) * normal(0)}
                row = [replace(each, new=new) for each in row]
                steps.append(e / at.sigma**2)
        yield [Move(each, None) for each in row]
        finite = [step for step in steps if math.isfinite(step)]
        return {"moves": len(steps), "steps": [min(finite), max(finite)] if finite else []}

    def _step(self, a: float, at: Point, seen: Sequence[Seen]) -> float:
        """e of samples that share it. A score of 0 leaves them where they are."""
        if self.corrector == "ald":
            return 2.0 * a * (self.snr * at.sigma) ** 2
        z = math.fsum(norm(each.normal(each.row.key)) for each in seen)
        g = math.fsum(norm(at.alpha * each.denoised - each.x) for each in seen)
        return 2.0 * a * (self.snr * z * at.sigma**2 / g) ** 2 if g else 0.0


def corrected(plan: Plan) -> dict[int, tuple[Point, Point]]:
    """The rows that begin a step from a whole state: where it is, and where the step ends."""
    rows, found = plan.rows, {}
    for i in range(1, len(rows)):
        call, state = rows[i].call, rows[i - 1].state
        if call is None or state is None or call.read != (0,) or call.at.alpha == 0.0:
            continue
        if math.isclose(state.lam, call.at.lam, rel_tol=0.0, abs_tol=1e-9):
            found[i] = call.at, next(row.state for row in rows[i:] if row.state is not None)
    return found


def _goes_elsewhere(row: Row) -> bool:
    """Whether a row that began at slot 0 takes its state from other slots alone."""
    new = row.new.get(0)
    if new is None or row.state is None or row.state.sigma == 0.0:
        return False
    return not new["S0"] and any(symbol[0] == "S" for symbol, _ in new)


def table(solver: Solver, points: Sequence[Point]) -> int:
    """N where a solver takes the published steps of 1/N, else 0."""
    return len(points) - 1 if isinstance(solver, Predictor) and solver.step == "1/N" else 0


def kept(process: GaussianProcess, s: Point, t: Point, n: int) -> float:
    """a: 1 - beta of the forward chain's link from t to s, (alpha_s / alpha_t)^2, which is 1 for VE; with n
    that of the published table, beta_k / n of n levels."""
    if not n or isinstance(process, VE):
        return (s.alpha / t.alpha) ** 2
    assert isinstance(process, VP)  # or sub-VP, to which steps of 1/N belong
    last = max(n - 1, 1)
    return 1.0 - float(process.beta(round(s.t * last / process.t_max) / last)) / n
