"""The plans of a sampler: made by its solver as they are asked for, and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import trace
from ..executors.lru import Lru
from ..guiders import Guider
from ..networks.parameterisation import Parameterisation
from ..ops import layout
from ..ops.philox import IMAGE, STATE
from ..plan import Plan, Row
from ..plan.guidance import classifier_free, classifier_guidance, compose, inpaint
from ..plan.linear import x
from ..processes import Point, grids
from ..solvers import Solver
from ..solvers.base import row_of
from ..solvers.inverse import encoding
from ..solvers.update import Update
from .driven import Driver

if TYPE_CHECKING:  # pydantic is loaded with the first sampler
    from .methods import Forecast

PLANS = 4096  # rows of plans that a sampler keeps, some 7 KB each

# of guidance, or the weights of the conditions that are composed
Scale = float | tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Plans:
    """Those of a solver for a network over the points of a run; Sampler explains the fields."""

    solver: Solver
    points: tuple[Point, ...]
    network: Parameterisation
    interval: tuple[float, float]
    classifier_scale: float
    clip: tuple[float, float] | None
    driver: Driver | None = None
    guider: Guider | None = None
    forecast: Forecast | None = None
    kept: Lru[tuple, Plan] = field(default_factory=lambda: Lru(PLANS))
    rows: Lru[tuple, Row] = field(default_factory=lambda: Lru(PLANS))

    def of(
        self,
        scale: Scale,
        start: float | None,
        kind: str = "prior",
        masked: bool = False,
        refine: int | None = None,
    ) -> Plan:
        """The plan of a run; Sampler.plan has the arguments."""
        # A network that reads its scale makes the calls of an unguided one.
        scale = 1.0 if self.network.reads_scale else scale
        key = (scale, start, kind, masked, refine)
        plan = self.kept.get(key)
        if plan is None:
            with trace.span("plan"):
                plan = self._guided(self._solved(start, kind, refine), scale)
                plan = inpaint(plan) if masked else plan
                self.kept.put(key, plan, min(len(plan.rows), PLANS))
        return plan

    def row(self, update: Update, scale: Scale, masked: bool, key: int) -> Row:
        """The row of an update that a driver writes, guided; Plans.of has the other arguments.

        key  names its normals
        """
        scale = 1.0 if self.network.reads_scale else scale
        if update.churn:
            raise ValueError(
                "churn belongs to the row ahead, which a driver writes itself: add the normal there"
            )
        whole = any(new["eps"] or new["U"] for new in update.new.values())
        new = (
            None if not whole else tuple((k, content.weights) for k, content in update.new.items())
        )
        about = (
            update.at, update.read, update.raw, update.slope, update.learned, update.state, scale, masked,
            new,
        )  # fmt: skip
        row = self.rows.get(about)
        if row is None:
            first = Row(call=None, new=dict.fromkeys(range(layout.SLOTS), x), state=update.at)
            made = row_of(update, self.network, self.clip, key)
            plan = self._guided(Plan((first, made), exact=False), scale)
            row = (inpaint(plan) if masked else plan).rows[1]
            self.rows.put(about, row, 1)
        return replace(row, new=row.new if whole else update.new, key=key)

    def request(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """What Request is asked, of what `sample` was: the same."""
        return asked

    def again(self, recorded: dict[str, Any]) -> dict[str, Any]:
        """What `sample` was asked, of what a recipe says: the same."""
        return recorded

    def _solved(self, start: float | None, kind: str, refine: int | None) -> Plan:
        """The solver's own plan, or the one that encodes."""
        network, clip = self.network, self.clip
        if refine is not None:
            kind = "whole" if kind == "whole" else "state"
            plan = encoding(self.solver, self.points, network, start, clip, refine, kind)
        else:
            points = self.points if start is None else self._points_from(start)
            make = (
                self.solver.plan if self.driver is None else partial(self.driver.plan, self.solver)
            )
            plan = make(network, points, kind, clip)
        if self.forecast is not None:
            if refine is not None:
                raise ValueError(
                    "forecast= leaves out calls of sampling, and encoding makes all: encode with a sampler "
                    "without it"
                )
            plan = self.forecast.apply(plan)
        if kind == "prior":
            return plan
        given = IMAGE if kind == "image" else STATE
        return plan.replace_rows([replace(row, key=given | row.key) for row in plan.rows])

    def _guided(self, plan: Plan, scale: Scale) -> Plan:
        network, interval = self.network, self.interval
        if isinstance(scale, tuple) and network.guide:
            raise ValueError(
                "an autoguided network follows one condition, and its second branch is its guide's: leave "
                "out compose"
            )
        if isinstance(scale, tuple):
            if self.guider is not None:
                raise ValueError(
                    f"guider {self.guider.name!r} guides by one condition, and compose= joins several; leave "
                    "one of them out"
                )
            plan = compose(plan, scale, network.unconditional)
        elif self.guider is not None:
            plan = self.guider.plan(plan, scale, interval)
        else:
            plan = classifier_free(plan, scale, interval)
        if network.gradient is None:
            return plan
        return classifier_guidance(plan, self.classifier_scale, network.gradient, interval)

    def _points_from(self, start: float) -> tuple[Point, ...]:
        first = grids.point_at(self.network.process, self.points, start)
        rest = tuple(p for p in self.points if p.lam > first.lam)
        if not rest:
            raise ValueError(
                f"start={start:g} lies at or after the last time t={self.points[-1].t:g}"
            )
        return (first, *rest)


def points_of(
    solver: Solver,
    network: Parameterisation,
    steps: int,
    grid: str | grids.Grid | None,
    end: str,
    times: Sequence[float | Point] | None,
    sigmas: Sequence[float] | None,
) -> tuple[Point, ...]:
    """The points of a run; Sampler explains the arguments."""
    if times is not None and sigmas is not None:
        raise ValueError("times and sigmas both fix the levels of a run; give one of them")
    if sigmas is not None:
        return grids.from_sigmas(network.process, sigmas)
    if times is not None:
        return grids.from_times(network.process, times)
    if grid is None and solver.parts == network.process.parts:
        grid = solver.default_grid(network.process)  # with which it was published
    return grids.points(network.process, steps, network.grid if grid is None else grid, end)
