"""Composition by annealed MCMC (Du et al. 2023, "Reduce, Reuse, Recycle", section 5 and algorithm 1).

A composition of densities p_i(x_0) is sampled through the levels t of their noised forms p_i,t:

    product   log p_t = sum_i w_i log p_i,t + const    score = sum_i w_i score_i, and w_i < 0 negates
    mixture   p_t = sum_i w_i p_i,t                    score = sum_i r_i score_i, r_i = w_i p_i,t / p_t

The product of noised densities is not the noised product, so the reverse diffusion with its score leads
elsewhere. But each p_t is a density, and they become the product at t = 0: at every level, after the reverse
step to it, some moves of a Markov chain whose law is p_t bring x back to it (mcmc_moves.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

from .. import checks
from ..executors.course import Course, Lead, Move, Seen
from ..networks.energy import EnergyGradient
from ..networks.parameterisation import Parameterisation
from ..ops.philox import IMAGE, STATE
from ..plan import Plan, Row
from ..plan.linear import x
from ..processes import Point
from ..sampler.led import Run
from ..solvers import Solver
from ..solvers.ddim import forward_std
from ..solvers.update import Update
from .base import Driver
from .mcmc_levels import Level, check_history, followed, levels, mixed, with_energy
from .mcmc_moves import Moves, hmc, mala, ula

LANGEVIN, ADJUSTED = ("ula", "mala"), ("mala", "hmc")
SAMPLERS = ("ula", "mala", "uhmc", "hmc")
COMPOSITIONS = ("product", "mixture")
# The variance in whose units a step is, of a level and the next cleaner one.
UNITS: dict[str, Callable[[Point, Point], float]] = {
    "beta": lambda at, cleaner: forward_std(at, cleaner) ** 2,
    "sigma": lambda at, cleaner: at.sigma**2,
    "one": lambda at, cleaner: 1.0,
}
# The published step, its unit and moves a level, of the paper's code for 100 levels of VP.
PUBLISHED = {
    "ula": (2.0, "beta", 20),
    "mala": (0.035, "beta", 20),
    "uhmc": (0.1, "sigma", 10),
    "hmc": (0.1, "sigma", 10),
}
MOVES = 1 << 16  # keys of a level
STEP = "give a number above 0, one for each level of a chain, or a function of a Point"


@dataclass(frozen=True)
class AnnealedMCMC(Driver):
    """Moves of a Markov chain at every level of a run, whose law is the composed density there.

    sampler      "ula", "mala", "uhmc" or "hmc"; "mala" and "hmc" accept or reject by the energy
    steps        moves a level; None is the published number. 0 is the reverse diffusion alone
    step         e in its unit, a number, one for each level, noisiest first, or a function of the level's
                 Point; None is the published one
    unit         of e: "beta", the variance beta_t of the forward step to the level from the next cleaner one;
                 "sigma", the level's own; "one". HMC's e is a length: of its root. None is the published one
    leapfrogs    of a move of HMC, one call each
    damping      of HMC's momentum from move to move; 0 draws it anew
    above, below  the chain runs at levels with above < sigma / alpha <= below; None has no end
    composition  "product" of the conditions of compose= with their weights, or their "mixture"

    Raises ValueError where an option makes no sense.
    """

    name: ClassVar[str] = "annealed_mcmc"
    source: ClassVar[str] = "Du et al. 2023, algorithm 1"
    leads: ClassVar[bool] = True
    sampler: str = "ula"
    steps: int | None = None
    step: float | list[float] | Callable[[Point], float] | None = None
    unit: str | None = None
    leapfrogs: int = 3
    damping: float = 0.7
    above: float = 0.0
    below: float | None = None
    composition: str = "product"

    def __post_init__(self) -> None:
        checks.one_of("sampler", self.sampler, SAMPLERS)
        checks.one_of("unit", self.unit, (None, *UNITS))
        checks.one_of("composition", self.composition, COMPOSITIONS)
        checks.settle(self, "steps", checks.whole, 0, "moves a level, 0 or more, or None")
        checks.settle(self, "leapfrogs", checks.whole, 1, "leapfrog steps of a move, 1 or more")
        checks.settle(self, "damping", checks.number)
        checks.settle(self, "above", checks.number)
        checks.settle(self, "below", checks.number)
        if not 0.0 <= self.damping < 1.0:
            raise ValueError(
                f"damping={self.damping:g}: it lies in [0, 1), and 0 draws momenta anew"
            )
        if not 0.0 <= self.above < self._below:
            raise ValueError(
                f"above={self.above:g}, below={self.below}: give ratios sigma / alpha, 0 <= above < below"
            )
        if self._moves >= MOVES:
            raise ValueError(f"steps={self.steps}: at most {MOVES - 1} moves a level have keys")
        if self.step is not None and not callable(self.step):
            step = checks.numbers("step", self.step, STEP)
            if min(step if isinstance(step, tuple) else (step,)) <= 0.0:
                raise ValueError(f"step={checks.said(self.step)}: {STEP}")
            object.__setattr__(self, "step", list(step) if isinstance(step, tuple) else step)

    @property
    def _moves(self) -> int:
        return PUBLISHED[self.sampler][2] if self.steps is None else self.steps

    @property
    def _below(self) -> float:
        return math.inf if self.below is None else self.below

    @property
    def _mixes(self) -> bool:
        return self.composition == "mixture"

    @property
    def _weighs(self) -> bool:
        """Whether it reads the network's energy."""
        return self._mixes or (self.sampler in ADJUSTED and self._moves > 0)

    def objection(self, network: Parameterisation, points: Sequence[Point]) -> str | None:
        if network.process.parts > 1:
            return (
                f"its chains move x by the score of x, and a network of {type(network.process).__name__} "
                "has that of the velocity alone; leave the driver out"
            )
        if self._weighs and not isinstance(network.rule, EnergyGradient):
            what = "composition='mixture'" if self._mixes else f"sampler={self.sampler!r}"
            other = "" if self._mixes else "; or use 'ula' or 'uhmc', which need the score alone"
            return (
                f"{what} weighs densities by their energy, which the network {network.name!r} does not say: "
                f"give one of networks.energy.from_energy{other}"
            )
        if self._weighs and network.gradient is not None:
            return (
                "its classifier's gradient has no part in the energy; compose classes with compose="
            )
        return None

    def plan(
        self, solver: Solver, network: Parameterisation, points: Sequence[Point], start: str,
        clip: tuple[float, float] | None,
    ) -> Plan:  # fmt: skip
        plan = super().plan(solver, network, points, start, clip)
        if len(plan.rows) >= IMAGE // MOVES:
            raise ValueError(
                f"{len(plan.rows)} rows: there are keys for {IMAGE // MOVES - 1}; take fewer steps"
            )
        check_history(plan, self._steps(plan))
        if not self._weighs:
            return plan
        return plan.replace_rows([with_energy(row) for row in plan.rows])

    def courses(self, runs: Sequence[Run]) -> list[Course]:
        for run in runs:
            self._check(run)
        return [
            Course(self.lead(run), [run.seat(self.slots)], length=self._length(run.plan))
            for run in runs
        ]

    def lead(self, run: Run) -> Lead:
        if not self._mixes:
            return self._lead(run)
        energy = run.network.rule
        assert isinstance(energy, EnergyGradient), "of objection"
        return followed(self._lead(run), partial(mixed, energy=energy, weights=_weights(run)))

    def _lead(self, run: Run) -> Lead:
        rows, chains = run.plan.rows, self._steps(run.plan)
        row, reports = rows[0], []
        for i, after in enumerate((*rows[1:], None)):
            if i not in chains:
                seen = yield Move(row, after)
            else:
                at, e = chains[i]
                level = self._level(run, at, after, (i + 1) * MOVES)
                seen = yield Move(row, level.call)
                kept = seen.slots[1:].clone()  # the solver's, which the chain uses meanwhile
                seen, accepted = yield from self._chain(level, seen, e)
                if seen is not None:
                    seen.slots[1:].copy_(kept)
                reports.append(self._report(at, e, accepted))
            row = row if seen is None else seen.row
        return self._reported(reports)

    def _steps(self, plan: Plan) -> dict[int, tuple[Point, float]]:
        """The rows behind which a chain runs, with the level and e there."""
        found = levels(plan, self.above, self._below) if self._moves else {}
        published, own, _ = PUBLISHED[self.sampler]
        unit, given = UNITS[self.unit or own], published if self.step is None else self.step
        if isinstance(given, list) and len(given) != len(found):
            raise ValueError(
                f"step has {len(given)} numbers and the chain runs at {len(found)} levels: {STEP}"
            )
        made = {}
        for n, (i, (at, cleaner)) in enumerate(found.items()):
            factor = given[n] if isinstance(given, list) else given
            if callable(factor) and checks.number("step", factor(at), STEP) <= 0.0:
                raise ValueError(f"step(t={at.t:g})={factor(at):g}: {STEP}")
            variance = unit(at, cleaner)
            e = variance if self.sampler in LANGEVIN else math.sqrt(variance)
            made[i] = at, e * (factor(at) if callable(factor) else factor)
        return made

    def _level(self, run: Run, at: Point, after: Row | None, key: int) -> Level:
        raw = (0.0, 1.0) if self._weighs else ()  # the energy
        call = replace(run.row(Update(at, {0: x}, at, raw=raw), key), clip=None)
        # An x that was made from the same seed has used the normals without these bits.
        key |= run.plan.rows[1].key & (IMAGE | STATE)
        energy = run.network.rule if self._weighs else None
        weights = _weights(run) if self._mixes else None
        return Level(at, call, after, run.seed, key, energy, weights)  # type: ignore[arg-type]

    def _chain(self, level: Level, seen: Seen, e: float) -> Moves:
        if self.sampler == "ula":
            return ula(level, seen, e, self._moves)
        if self.sampler == "mala":
            return mala(level, seen, e, self._moves)
        adjusted = self.sampler == "hmc"
        return hmc(level, seen, e, self._moves, self.leapfrogs, self.damping, adjusted)

    def _report(self, at: Point, e: float, accepted: int) -> dict[str, float]:
        made = {"t": at.t, "step": e}
        return made | {"acceptance": accepted / self._moves} if self.sampler in ADJUSTED else made

    def _reported(self, found: list[dict[str, float]]) -> dict[str, Any]:
        if self.sampler not in ADJUSTED or not found:
            return {"levels": found}
        mean = math.fsum(level["acceptance"] for level in found) / len(found)
        return {"acceptance": mean, "levels": found}

    def _length(self, plan: Plan) -> int:
        """Rows of a sample's run."""
        calls = self._moves * (1 if self.sampler in LANGEVIN else self.leapfrogs)
        return len(plan.rows) - 1 + len(self._steps(plan)) * (calls + (self.sampler in ADJUSTED))

    def _check(self, run: Run) -> None:
        """Raises ValueError where a request asks for what the chain does not do."""
        if run.job.mask is not None:
            raise ValueError(
                f"driver {self.name!r} moves all of x, and a known region would hold some of it; sample "
                "without mask and known"
            )
        if self._mixes:
            _weights(run)


def _weights(run: Run) -> dict[int, float]:
    """Those of a mixture, by branch."""
    wanted = (
        "a mixture has compose=[(condition, weight), ...] with weights above 0 that sum to 1, as in "
        "[(0, 0.5), (1, 0.5)]"
    )
    if not isinstance(run.scale, tuple):
        raise ValueError(f"guidance={run.scale:g} and composition='mixture': {wanted}")
    if min(run.scale) <= 0.0 or math.fsum(run.scale) != 1.0:
        raise ValueError(f"weights {list(run.scale)} and composition='mixture': {wanted}")
    return {i + (i > 0): weight for i, weight in enumerate(run.scale)}
