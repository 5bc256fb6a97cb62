"""`Driver`: what every driver shares."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from ..executors.course import Course, Lead
from ..networks.network import ScoreNetwork
from ..networks.parameterisation import Parameterisation
from ..ops import layout
from ..plan import Plan
from ..processes import Point
from ..sampler.led import Run
from ..solvers import Solver


class Driver:
    """What leads a sample beside its table. A subclass is a frozen dataclass whose fields are its options,
    and uses one of three places; the others are left alone:

    network   another network in its place, whose estimate of x0 follows a measurement, say
    plan      another table than the solver's
    courses   leads the seats of samples while they run; `lead` does for one sample in one seat

    name      in recipes, on the command line and in errors
    source    the paper, and the equation or algorithm
    leads     whether it uses `courses`
    together  whether the samples of a request depend on one another; an option may make it so
    across    whether every process that torchrun started makes all samples, and calls are dealt to them
    slots     that its seats take, where it leads
    served    whether a server's clients may name it: no option of it makes what lies between two rows long
    """

    name: ClassVar[str] = "driver"
    source: ClassVar[str] = ""
    leads: ClassVar[bool] = False
    together = False
    across = False
    slots: ClassVar[int] = layout.SLOTS
    served: ClassVar[bool] = True

    @classmethod
    def options(cls) -> frozenset[str]:
        """The names of its options."""
        return frozenset(f.name for f in dataclasses.fields(cls) if f.init)  # type: ignore[arg-type]

    def objection(self, network: Parameterisation, points: Sequence[Point]) -> str | None:
        """Why it cannot run this network over these points, as a sentence; None where it can."""
        return None

    def network(self, network: ScoreNetwork) -> ScoreNetwork:
        """What runs in a network's place."""
        return network

    def plan(
        self, solver: Solver, network: Parameterisation, points: Sequence[Point], start: str,
        clip: tuple[float, float] | None,
    ) -> Plan:  # fmt: skip
        """The table of a run, before guidance; of the solver, whose Solver.plan has start and clip."""
        return solver.plan(network, points, start, clip)

    def courses(self, runs: Sequence[Run]) -> list[Course]:
        """What leads the samples of a request that run together, of which `runs` tells: one course for each,
        unless they depend on one another."""
        return [Course(self.lead(run), [run.seat(self.slots)]) for run in runs]

    def lead(self, run: Run) -> Lead:
        """What leads one sample in one seat (executors/course.py)."""
        raise ValueError(f"driver {self.name!r} leads nothing")
