"""The states of a learned table in terms of x_0 and of the estimates of x0, on a process."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..processes import GaussianProcess, Point
from .table import Law, Table

Array = np.ndarray
CLOSE = 1e-6  # of lam, between a level in a table and the process's at its time
KEPT = 1e-9  # to which an exact table keeps x0


@dataclass(frozen=True, eq=False)
class Weights:
    """points[i] and states[i], i = 0 ... N: the level of x_i, and its weights of x_0, D_0, ..., D_{N-1}, the
    estimates of x0 of the calls."""

    points: tuple[Point, ...]
    states: Array

    @property
    def calls(self) -> int:
        return len(self.points) - 1

    @cached_property
    def scale(self) -> Array:
        """How large x_0 and the estimates are, those about as the data."""
        return np.array(
            [math.hypot(self.points[0].alpha, self.points[0].sigma), *[1.0] * self.calls]
        )

    @cached_property
    def ends(self) -> frozenset[int]:
        """The states that end steps: the first, the last, and those before which all are as noisy or noisier
        and after which all are cleaner."""
        lams = [point.lam for point in self.points]
        inner = (
            i
            for i in range(1, self.calls)
            if lams[0] < lams[i] and max(lams[:i]) <= lams[i] < min(lams[i + 1 :])
        )
        return frozenset((0, *inner, self.calls))

    @property
    def milestones(self) -> tuple[Point, ...]:
        """The levels of the states that end steps: the points of a run."""
        return tuple(p for i, p in enumerate(self.points) if i in self.ends)


def law_of(process: GaussianProcess) -> Law:
    """A process as a table records it: but for its ends, which a table has of its own."""
    numbers = {
        field.name: float(value)
        for field in dataclasses.fields(process)
        if field.name not in ("t_min", "t_max")
        and isinstance(value := getattr(process, field.name), (int, float))
    }
    return Law(name=type(process).__name__, numbers=numbers)


def objection(table: Table, process: GaussianProcess) -> str | None:
    """Why a table does not suit a process, as a sentence; None where it does."""
    own, law = law_of(process), table.process
    other = {n: v for n, v in law.numbers.items() if not _close(own.numbers.get(n), v)}
    if law.name == own.name and not other:
        return None
    return (
        f"its table was learned on {_said(law)}, and the network's process is {_said(own)}; learn one for "
        "this network with `diffusion-engine tune`"
    )


def weights(table: Table, process: GaussianProcess) -> Weights:
    """A table's weights. Raises ValueError where its levels are none of the process's, do not lead to less
    noise, or an exact table does not keep x0."""
    points = _points(table, process)
    lams = [p.lam for p in points]
    if max(lams[:-1]) > lams[-1] or min(p.sigma for p in points[:-1]) == 0.0:
        raise ValueError(
            "the last level of a table is that of its sample, and the cleanest; these have "
            f"log(alpha / sigma) {[round(lam, 4) for lam in lams]}"
        )
    n = table.calls
    states, outs = np.zeros((n + 1, n + 1)), np.zeros((n, n + 1))
    states[0, 0] = 1.0
    for i, row in enumerate(table.b, 1):
        outs[i - 1] = _output(table.of, points[i - 1], states[i - 1], i)
        base = states[0 if table.base == "start" else i - 1]
        a = None if table.a is None else table.a[i - 1]
        terms = [(a, base), *zip(row, outs[i - len(row) : i], strict=True)]
        states[i] = _sum(terms, points[0], points[i])
        if not states[i].any():
            raise ValueError(f"x_{i} of the table is made of nothing; give its row of b a number")
    made = Weights(points, states)
    if table.exact:
        _check(made)
    return made


def _sum(terms: list[tuple[float | None, Array]], first: Point, at: Point) -> Array:
    """The sum of weights times vectors; those that are None are what gives the sum the law of a point."""

    def law(state: Array) -> tuple[float, float]:
        """The weights of x0 and of the first noise in a state, where the calls know x0."""
        return float(state[0] * first.alpha + state[1:].sum()), float(state[0] * first.sigma)

    known = sum((w * v for w, v in terms if w is not None), np.zeros(len(terms[0][1])))
    open_ = [v for w, v in terms if w is None]
    if not open_:
        return known
    lacks = np.array([at.alpha, at.sigma]) - law(known)
    found = np.linalg.lstsq(np.array([law(v) for v in open_]).T, lacks, rcond=None)[0]
    return known + sum(w * v for w, v in zip(found, open_, strict=True))


def _output(of: str, at: Point, state: Array, i: int) -> Array:
    """What call i - 1 of a state counts as: x0, or (x - alpha x0) / sigma and what is made of it."""
    x0 = np.zeros(len(state))
    x0[i] = 1.0
    if of == "x0":
        return x0
    eps = (state - at.alpha * x0) / at.sigma
    return {"eps": eps, "v": at.alpha * eps - at.sigma * x0, "flow": eps - x0}[of]


def _points(table: Table, process: GaussianProcess) -> tuple[Point, ...]:
    if table.times is not None:
        return tuple(_at(process, t) for t in table.times)
    if table.sigmas is not None:
        return tuple(process.at_ratio(g) if g else process.clean for g in table.sigmas)
    assert table.lams is not None
    return tuple(process.clean if lam is None else process.at_lam(lam) for lam in table.lams)


def _at(process: GaussianProcess, given: Any) -> Point:
    """A time's point, or that of (t, alpha, sigma), which has the process's level at t, or lies beyond it."""
    if not isinstance(given, tuple):
        return process.at(given)
    point = Point(*given)
    if point == process.clean:
        return point
    low, high = process.range
    own = process.at(min(max(point.t, low), high))
    beyond = point.t in (low, high)
    if point.sigma <= 0.0 or point.alpha < 0.0 or not (beyond or _close(own.lam, point.lam, CLOSE)):
        raise ValueError(
            f"the table's level {given} is none of {type(process).__name__}, which at t={point.t:g} has "
            f"alpha={own.alpha:g} and sigma={own.sigma:g}: it was learned on another"
        )
    return point


def _check(made: Weights) -> None:
    """Raises ValueError where a state that ends a step does not have its level."""
    first = made.points[0]
    for i in sorted(made.ends):
        point, state = made.points[i], made.states[i]
        signal, noise = state[0] * first.alpha + state[1:].sum(), state[0] * first.sigma
        size = max(1.0, float(np.abs(state).max()), point.sigma)
        if max(abs(signal - point.alpha), abs(noise - point.sigma)) > KEPT * size:
            raise ValueError(
                f"x_{i} of the table has {signal:.12g} x0 and noise of {noise:.12g} where its level has "
                f"alpha={point.alpha:.12g} and sigma={point.sigma:.12g}: give null for the last number of "
                'its row of b, and no a, to have them made so, or say "exact": false where that is meant'
            )


def _close(a: float | None, b: float, within: float = 1e-9) -> bool:
    return a is not None and (a == b or math.isclose(a, b, rel_tol=within, abs_tol=within))


def _said(law: Law) -> str:
    return f"{law.name}({', '.join(f'{n}={v:g}' for n, v in law.numbers.items())})"
