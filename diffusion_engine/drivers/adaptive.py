"""Runge-Kutta pairs whose steps follow from their errors.

Any process is flow matching up to scale: y = x / (alpha + sigma) moves in u = sigma / (alpha + sigma) by
dy / du = eps - x0, from 1 at pure noise to 0 at clean data, and neither end is singular. A step from u_s to
u_t = u_s - h is

    y_i = y_s - h sum_{j<i} a_ij v_j at u_s - c_i h,   y_t = y_s - h sum_i b_i v_i,

v the velocities, and its error is h sum_i (b_i - b'_i) v_i, b' the weights of the embedded formula. Where x0
or eps is constant y is a straight line, and every step exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import checks
from ..plan.linear import Linear
from ..processes import GaussianProcess, Point
from .embedded import STATE, TOLERANCE, Embedded, Step, above_0, estimate


@dataclass(frozen=True)
class Pair:
    """A pair of Runge-Kutta formulas; the last stage is the first of the next step.

    a      of each stage behind the first its weights; the last are those of the end
    lower  the weights of the other formula
    order  of the end
    """

    a: tuple[tuple[float, ...], ...]
    lower: tuple[float, ...]
    order: int


# Bogacki & Shampine 1989.
RK23 = Pair(
    a=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    lower=(7 / 24, 1 / 4, 1 / 3, 1 / 8),
    order=3,
)
# Dormand & Prince 1980, RK5(4)7M.
RK45 = Pair(
    a=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    lower=(5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40),
    order=5,
)
PAIRS = {"rk23": RK23, "rk45": RK45}


class ByError:
    """h *= clip(0.9 error^(-1 / order), 0.2, 10); a step is good with an error of 1 at most, and behind one
    that was not the next is no longer (Hairer, Norsett & Wanner 1993, II.4)."""

    def __init__(self, h: float, order: int) -> None:
        self.h, self.order, self._most = h, order, 10.0

    def accepts(self, error: float, length: float) -> bool:
        good = error <= 1.0
        wanted = 0.9 * error ** (-1.0 / self.order) if error > 0.0 else math.inf
        self.h = length * min(max(wanted, 0.2), self._most)
        self._most = 10.0 if good else 1.0
        return good


@dataclass(frozen=True)
class Adaptive(Embedded):
    """Runge-Kutta pairs in u = sigma / (alpha + sigma), each sample with steps of its own.

    A step is taken where the root of the mean square of error / (atol + rtol max(|x_s|, |x_t|)) is at most 1.

    pair    "rk23", three calls a step, or "rk45", six
    rtol    relative tolerance, above 0
    atol    absolute tolerance, above 0, of x = alpha x0 + sigma eps
    h_init  first step tried, in u, which runs from at most 1 to 0
    max_calls  of the network, beyond which a sample is given up with an error
    """

    name: ClassVar[str] = "adaptive"
    source: ClassVar[str] = "Bogacki & Shampine 1989; Dormand & Prince 1980"
    first_same_as_last: ClassVar[bool] = True
    pair: str = "rk23"
    rtol: float = 5e-3
    atol: float = 5e-3
    h_init: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("pair", self.pair, tuple(PAIRS))
        for name in ("rtol", "atol"):
            checks.settle(self, name, above_0, TOLERANCE)
        checks.settle(self, "h_init", above_0, "a step is a finite number above 0")

    def place(self, at: Point) -> float:
        return -at.sigma / (at.alpha + at.sigma)

    def point(self, process: GaussianProcess, place: float) -> Point:
        return process.at_ratio(-place / (1.0 + place))

    def lengths(self) -> ByError:
        return ByError(self.h_init, PAIRS[self.pair].order)

    def allowed(self, before: Tensor, end: Tensor, low: Tensor) -> Tensor:
        return self.atol + self.rtol * before.abs().maximum(end.abs())

    def step(self, process: GaussianProcess, s: Point, t: Point, last: Point) -> Step:
        pair, begin, h = PAIRS[self.pair], self.place(s), self.place(t) - self.place(s)
        velocities = [_velocity(s, STATE, 0)]

        def moved(at: Point, weights: tuple[float, ...]) -> Linear:
            scale, change = at.alpha + at.sigma, Linear()
            for weight, velocity in zip(weights, velocities, strict=True):
                change = change + h * weight * velocity
            return scale / (s.alpha + s.sigma) * STATE - scale * change

        calls = []
        for i, weights in enumerate(pair.a, 1):
            at = t if i == len(pair.a) else self.point(process, begin + h * sum(weights))
            calls.append((at, moved(at, weights)))
            velocities.append(_velocity(*calls[-1], i))
        return Step(calls, calls[-1][1], moved(t, pair.lower))


def _velocity(at: Point, state: Linear, i: int) -> Linear:
    """eps - x0 of the call i."""
    return (state - (at.alpha + at.sigma) * estimate(i)) / at.sigma
