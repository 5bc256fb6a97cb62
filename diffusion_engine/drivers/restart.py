"""Restart sampling (Xu et al. 2023, algorithm 1): noise is added again, and the ODE runs down again.

Where a run arrives at sigma / alpha = low, K times over,

    x_high = (alpha_high / alpha_low) x_low + sqrt(sigma_high^2 - (alpha_high / alpha_low)^2 sigma_low^2) z

and the solver goes from high to low in `steps` steps. The errors made so far contract with every fresh z, as
those of an SDE do, and between the jumps the steps are an ODE's, which are large. It is a table: a jump is
noise at the end of a row, and a pass the beginning of the solver's plan over the points that remain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..ops import layout
from ..plan import Plan, Row
from ..plan.linear import normal
from ..processes import GaussianProcess, Point
from ..solvers import Solver
from .base import Driver

INTERVALS = (
    "give (low, high, repeats, steps) of each, as [(0.1, 0.6, 2, 3)], low < high in sigma / alpha"
)
CLOSE = 1e-9  # in lam
RHO = 7.0  # of the levels of a pass, which lie as Karras et al.'s


class Interval(NamedTuple):
    """Where a run goes back: from low to high, so often, down again in so many steps."""

    low: float
    high: float
    repeats: int
    steps: int


ROWS = 100_000  # that a plan is made of at once


def _of_imagenet(*passes: tuple[int, int]) -> tuple[Interval, ...]:
    """The paper's levels of ImageNet 64 with (K, steps) of each, from noise to data."""
    levels = ((19.35, 40.79), (1.09, 1.92), (0.59, 1.09), (0.3, 0.59), (0.06, 0.3))
    return tuple(Interval(*ends, *one) for ends, one in zip(levels, passes, strict=True) if one[0])


# For 'heun' on EDM's grid.
PUBLISHED: dict[str, tuple[int, tuple[Interval, ...]]] = {
    "cifar10_vp_43": (18, (Interval(0.06, 0.3, 2, 2),)),
    "cifar10_vp_55": (18, (Interval(0.06, 0.3, 5, 2),)),
    "cifar10_vp_75": (18, (Interval(0.06, 0.3, 10, 2),)),
    "cifar10_vp_115": (18, (Interval(0.06, 0.3, 20, 2),)),
    "cifar10_vp_519": (20, (Interval(0.06, 0.2, 30, 8),)),
    "cifar10_edm_43": (18, (Interval(0.14, 0.3, 2, 2),)),
    "imagenet64_39": (14, _of_imagenet((1, 2), (1, 2), (0, 0), (0, 0), (1, 2))),
    "imagenet64_67": (18, _of_imagenet((1, 4), (1, 4), (1, 4), (0, 0), (1, 4))),
    "imagenet64_99": (18, _of_imagenet((1, 2), (1, 3), (4, 3), (1, 3), (4, 3))),
    "imagenet64_165": (18, _of_imagenet((1, 2), (1, 3), (5, 3), (5, 3), (10, 3))),
    "imagenet64_203": (36, _of_imagenet((1, 3), (1, 3), (5, 3), (5, 3), (6, 5))),
    "imagenet64_385": (36, _of_imagenet((1, 2), (1, 5), (5, 5), (5, 5), (20, 5))),
    "imagenet64_535": (36, _of_imagenet((1, 5), (1, 5), (6, 6), (6, 6), (25, 6))),
    "imagenet64_623": (36, _of_imagenet((3, 9), (3, 9), (6, 6), (6, 6), (25, 6))),
}
"""Intervals by data and calls, and the steps of the run around them (Xu et al. 2023, tables 3 and 5)."""


@dataclass(frozen=True)
class Restart(Driver):
    """K times noise up from low to high, and the ODE's solver down again.

    intervals  (low, high, K, steps) of each, levels in sigma / alpha. A run goes back where it arrives at the
               point nearest to `low`. Or the name of published ones, as "cifar10_vp_43", of PUBLISHED
    s_noise    multiplies the noise; the paper's runs of EDM's networks have 1.003
    """

    name: ClassVar[str] = "restart"
    source: ClassVar[str] = "Xu et al. 2023 (Restart), algorithm 1"
    intervals: Sequence[tuple[float, float, int, int]] | str = ((0.1, 0.6, 2, 3),)
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "s_noise", checks.number("s_noise", self.s_noise))
        if isinstance(self.intervals, str):
            found = PUBLISHED[checks.one_of("intervals", self.intervals, tuple(PUBLISHED))]
            object.__setattr__(self, "intervals", found[1])
        made = tuple(map(_interval, checks.entries("intervals", self.intervals, INTERVALS)))
        if not made:
            raise ValueError(f"intervals={checks.said(self.intervals)}: {INTERVALS}")
        rows = sum(repeats * steps for *_, repeats, steps in made)
        if rows > ROWS:
            raise ValueError(
                f"intervals={checks.said(self.intervals)} run {rows} steps again; give {ROWS} at most"
            )
        object.__setattr__(self, "intervals", made)

    @property
    def passes(self) -> tuple[Interval, ...]:
        """The intervals, checked."""
        assert not isinstance(self.intervals, str)
        return tuple(map(Interval._make, self.intervals))

    def objection(self, network: Parameterisation, points: Sequence[Point]) -> str | None:
        if network.process.parts > 1:
            return "it adds noise to x alone, and this process moves a velocity too; leave the driver out"
        taken: set[int] = set()
        for low, high, *_ in self.passes:
            i = _nearest(points, low)
            if not points[0].ratio >= high > points[i].ratio > 0.0 or i == 0:
                return (
                    f"its interval {low:g} to {high:g} goes from a point of the run up to a level below its "
                    f"first; the nearest point is {points[i].ratio:g}, the first {points[0].ratio:g}"
                )
            if i in taken:
                return (
                    f"two intervals begin at the point {points[i].ratio:g}; take more steps, or one"
                )
            taken.add(i)
        return None

    def plan(
        self, solver: Solver, network: Parameterisation, points: Sequence[Point], start: str,
        clip: tuple[float, float] | None,
    ) -> Plan:  # fmt: skip
        rows: list[Row] = []
        for run, low in self._passes(network.process, tuple(points)):
            made = solver.plan(network, run, start, clip).rows
            if rows:
                rows[-1] = _raised(rows[-1], run[0], self.s_noise)
            rows += _until(made[1:], low) if rows else [made[0], *_until(made[1:], low)]
            if any(row.draws(m) for row in made[1:] for m in range(layout.NORMALS)):
                raise ValueError(
                    f"solver {solver.name!r} draws noise of its own, and restart adds its between runs of an "
                    "ODE; use a deterministic one, such as 'heun' or 'dpmpp_2m'"
                )
        keyed = [replace(row, key=i, spans=()) for i, row in enumerate(rows)]
        return Plan(tuple(keyed), f"{solver.name} with restart", solver.exact)

    def _passes(
        self, process: GaussianProcess, points: tuple[Point, ...]
    ) -> Iterator[tuple[tuple[Point, ...], Point | None]]:
        """The points of each pass and where it ends; None is the run's end, where the last one goes."""
        begins = {_nearest(points, one.low): one for one in self.passes}
        run = points
        for i in sorted(begins):
            low, one = points[i], begins[i]
            if i == 0:  # a run from a given x may start below it
                continue
            again = (*_levels(process, one, low), *points[i:])
            yield run, low
            for _ in range(one.repeats - 1):
                yield again, low
            run = again
        yield run, None


def _interval(given: Any) -> Interval:
    """An interval, checked."""
    parts = checks.entries("intervals", given, INTERVALS)
    if len(parts) != 4:
        raise ValueError(f"intervals={checks.said(given)}: {INTERVALS}")
    low, high = checks.pair("intervals", parts[:2], INTERVALS)
    if low <= 0.0:
        raise ValueError(f"low={low:g}: {INTERVALS}, low above 0")
    return Interval(
        low,
        high,
        checks.whole("repeats", parts[2], 1, INTERVALS),
        checks.whole("steps", parts[3], 1, INTERVALS),
    )


def _nearest(points: Sequence[Point], ratio: float) -> int:
    """The place of the point of a run whose level is nearest to a ratio, in its logarithm."""
    lam = -math.log(ratio)
    return min(range(len(points)), key=lambda i: abs(points[i].lam - lam))


def _levels(process: GaussianProcess, interval: Interval, low: Point) -> list[Point]:
    """The points of a pass before its last: evenly spaced in (sigma / alpha)^(1 / 7) (Karras et al. 2022)."""
    ends = (interval.high ** (1.0 / RHO), low.ratio ** (1.0 / RHO))
    return [process.at_ratio(g) for g in np.linspace(*ends, interval.steps + 1)[:-1] ** RHO]


def _until(rows: Sequence[Row], low: Point | None) -> list[Row]:
    """The rows of a plan up to the one that arrives at a point."""
    if low is None:
        return list(rows)
    arrived = (i for i, row in enumerate(rows, 1) if row.state and row.state.lam > low.lam - CLOSE)
    return list(rows[: next(arrived)])


def _raised(row: Row, high: Point, s_noise: float) -> Row:
    """A row that arrives at low, with the noise that leads up from there."""
    low = row.state
    assert low is not None
    scale = high.alpha / low.alpha
    noise = math.sqrt(high.sigma**2 - (scale * low.sigma) ** 2)
    raised = scale * row.new[0] + s_noise * noise * normal(0)
    return replace(row, new={0: raised}, state=high)
