"""`Driver`: what every driver shares."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from ..networks.network import ScoreNetwork
from ..networks.parameterisation import Parameterisation
from ..plan import Plan
from ..processes import Point


class Driver:
    """What leads a sample beside its table. A subclass is a frozen dataclass whose fields are its options,
    and uses one of three places; the others are left alone:

    network   another network in its place, whose estimate of x0 follows a measurement, say
    plan      another table
    courses   leads the seats of samples while they run; `lead` does for one sample in one seat

    name      in recipes, on the command line and in errors
    source    the paper, and the equation or algorithm
    """

    name: ClassVar[str] = "driver"
    source: ClassVar[str] = ""

    @classmethod
    def options(cls) -> frozenset[str]:
        """The names of its options."""
        return frozenset(f.name for f in dataclasses.fields(cls) if f.init)  # type: ignore[arg-type]

    def objection(self, network: Parameterisation, points: tuple[Point, ...]) -> str | None:
        """Why it cannot run this network over these points, as a sentence; None where it can."""
        return None

    def network(self, network: ScoreNetwork) -> ScoreNetwork:
        """What runs in a network's place."""
        return network

    def plan(self, plan: Plan, network: Parameterisation) -> Plan:
        """What runs in a plan's place."""
        return plan
