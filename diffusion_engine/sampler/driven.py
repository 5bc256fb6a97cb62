"""The driver of a sampler. Those of this package are in `drivers`, which is loaded when one is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from .. import checks
from ..executors.course import Course
from ..networks.network import ScoreNetwork
from ..networks.parameterisation import Parameterisation
from ..plan import Plan
from ..processes import Point
from ..solvers import Solver

HINT = "give a name, {'name': ..., 'options': {...}}, or an object of drivers.Driver"


class Driver(Protocol):
    """What a sampler asks of a driver; drivers.Driver explains it."""

    name: Any
    leads: Any
    together: Any
    across: Any

    def objection(self, network: Parameterisation, points: Sequence[Point]) -> str | None: ...

    def network(self, network: ScoreNetwork) -> ScoreNetwork: ...

    def plan(
        self, solver: Solver, network: Parameterisation, points: Sequence[Point], start: str,
        clip: tuple[float, float] | None,
    ) -> Plan: ...  # fmt: skip

    def courses(self, runs: Sequence[Any]) -> list[Course]: ...


def driver(given: Any) -> Driver | None:
    """The driver of a name, of a name with options as a Spec has them, or an object.

    Raises ValueError where there is none such.
    """
    if given is None:
        return None
    name, options = given, dict[str, Any]()
    if isinstance(given, Mapping):
        checks.names("driver", given, ("name", "options"))
        name, options = given.get("name"), dict(given.get("options") or {})
    if isinstance(name, str):
        made: Driver = import_module("..drivers", __package__).driver(name, **options)
        return made
    if options or not callable(getattr(name, "courses", None)):
        raise ValueError(f"driver={checks.said(given)}: {HINT}")
    found: Driver = name
    return found
