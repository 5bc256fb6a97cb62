"""Symmetric splitting of CLD's SDE, and what comes of other treatments of its score part.

A step is half of the flow that needs no network (`flow`, exact), then all of

    dv = 2 Gamma beta (s_v + v / M) dtau   with x at rest,

then the other half of the flow (SSCS of Dockhorn et al. 2022). The half that ends a step
and the one that begins the next are one Gaussian transition, so that a row holds both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from ..networks.parameterisation import Parameterisation
from ..networks.prediction import Velocity
from ..plan import Row
from ..plan.linear import Linear, raw, slot
from ..processes import Point
from .base import Points, Update, steps
from .cld import OUTPUT, CLDSolver, System, flown


@dataclass(frozen=True)
class Kick:
    """A call within the score part: read x and the velocity in a slot, and what v becomes."""

    at: Point
    v: Linear
    read: int = 1
    raw: tuple[float, ...] = OUTPUT


@dataclass(frozen=True)
class Splitting(CLDSolver):
    """Flow, score part, flow.

    merged  adjacent halves of the flow are one transition: the same law from half the normals. False draws
            each half's own, in a row without a network call
    """

    merged: bool = True

    @property
    def stochastic(self) -> bool:
        return True

    def kicks(self, system: System, s: Point, t: Point) -> list[Kick]:
        """The calls of the score part from s to t; all but the last leave their v in slot 2."""
        raise NotImplementedError

    def halves(self, system: System, s: Point, t: Point) -> tuple[float, float]:
        """The integrals of beta over the two halves of a step."""
        middle = midpoint(system, s, t)
        return system.between(s, middle), system.between(middle, t)

    def lead(self, system: System, points: Points) -> Point:
        return midpoint(system, points[0], points[1])

    def rows(self, system: System, points: Points) -> Iterator[Update | Row]:
        process = system.process
        intervals = list(steps(points))
        for i, (s, t) in enumerate(intervals):
            *stages, last = self.kicks(system, s, t)
            for stage in stages:
                yield Update(stage.at, {2: stage.v}, None, (0, stage.read), raw=stage.raw)
            b, end, following = self.halves(system, s, t)[1], t, 0.0
            if i + 1 < len(intervals):
                following = self.halves(system, *intervals[i + 1])[0]
                end = midpoint(system, *intervals[i + 1])
            if self.merged:
                b, t = b + following, end
            new = flown(process, b, last.v)
            yield Update(last.at, new, t, (0, last.read), raw=last.raw)
            if following and not self.merged:
                yield Row(call=None, new=flown(process, following, slot(1)), state=end)


def midpoint(system: System, s: Point, t: Point) -> Point:
    return system.process.at(0.5 * (s.t + t.t))


def expm1_ratio(z: float) -> float:
    """(e^z - 1) / z."""
    return math.expm1(z) / z if z else 1.0


@dataclass(frozen=True)
class SSCS(Splitting):
    """As published: one step of Euler's method for the score part, beta and score at the step's start.

    published  both halves of the flow integrate beta over the first half of the step, as the paper's code
               does; it matters where beta varies
    """

    name: ClassVar[str] = "sscs"
    source: ClassVar[str] = "Dockhorn et al. 2022, SSCS"
    differs: ClassVar[str] = (
        "the second half of the flow integrates beta over its own half of the step, where the paper's "
        "code takes the first half's (published=True); the final denoising calls no network, whose output "
        "x does not use"
    )
    published: bool = False

    def halves(self, system: System, s: Point, t: Point) -> tuple[float, float]:
        first, second = super().halves(system, s, t)
        return first, first if self.published else second

    def kicks(self, system: System, s: Point, t: Point) -> list[Kick]:
        process, v = system.process, slot(1)
        a = 2.0 * process.friction * float(process.beta(s.t)) * (s.t - t.t)
        return [Kick(s, v + a * (system.score(s, v) + v / process.mass))]


class Midpoint(Splitting):
    """Score parts at the middle of a step."""

    source: ClassVar[str] = "extends SSCS of Dockhorn et al. 2022"

    def at(self, system: System, s: Point, t: Point) -> tuple[Point, float]:
        """The middle, and 2 Gamma times the integral of beta over the step."""
        return midpoint(system, s, t), 2.0 * system.process.friction * system.between(s, t)


@dataclass(frozen=True)
class SSCSMid(Midpoint):
    """SSCS with beta and score at the middle of the step, where the state is."""

    name: ClassVar[str] = "sscs_mid"

    def kicks(self, system: System, s: Point, t: Point) -> list[Kick]:
        middle, a = self.at(system, s, t)
        v = slot(1)
        return [Kick(middle, v + a * (system.score(middle, v) + v / system.process.mass))]


@dataclass(frozen=True)
class SSCSMixed(Midpoint):
    """The score part with -v / Svv + v / M exact and the rest of the score frozen: a mixed score's network
    is small where data are near to a Gaussian. Svv is v's variance given x0."""

    name: ClassVar[str] = "sscs_mixed"

    def kicks(self, system: System, s: Point, t: Point) -> list[Kick]:
        middle, a = self.at(system, s, t)
        v = slot(1)
        kappa, rest = system.rate(middle, v)
        return [Kick(middle, math.exp(a * kappa) * v + a * expm1_ratio(a * kappa) * rest)]


@dataclass(frozen=True)
class SSCS2(Midpoint):
    """The score part by the explicit midpoint rule, its linear part exact: second order, two calls a step."""

    name: ClassVar[str] = "sscs2"
    calls: ClassVar[int] = 2
    order = 2

    def kicks(self, system: System, s: Point, t: Point) -> list[Kick]:
        middle, a = self.at(system, s, t)
        v, half = slot(1), slot(2)
        kappa, rest = system.rate(middle, v)
        first = math.exp(0.5 * a * kappa) * v + 0.5 * a * expm1_ratio(0.5 * a * kappa) * rest
        _, rest = system.rate(middle, half)
        second = math.exp(a * kappa) * v + a * expm1_ratio(a * kappa) * rest
        return [Kick(middle, first), Kick(middle, second, read=2)]


@dataclass(frozen=True)
class SSCSExact(Midpoint):
    """The score part exact for a score that is linear in v: second order in one call, of a network that
    also returns products with its derivative D = do/dv (`linearized`).

    With s_v + v / M = kappa v + r, R = dr/dv and f the left side at the old v, the increment is

        a phi_1(a (kappa + R)) f = a sum_k phi_1^(k)(a kappa) / k! (a R)^k f,   k up to `powers`

    R^k f is a sum of D^j v and D^j o. Guidance mixes outputs, and D o of a mixture is no mixture of them:
    with it the order is 1.
    """

    name: ClassVar[str] = "sscs_exact"
    order = 2

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        rule = parameterisation.rule
        if isinstance(rule, Velocity) and rule.powers:
            return super().objection(parameterisation, points)
        return "it needs the derivative of the score along v; give it linearized(network), or use 'sscs2'"

    def kicks(self, system: System, s: Point, t: Point) -> list[Kick]:
        middle, a = self.at(system, s, t)
        kappa, rest = system.rate(middle, slot(1))
        by_v, by_output = rest["S1"], rest["raw"]
        on_v, on_output = (
            [0.0] * (1 + system.prediction.powers),
            [0.0] * (1 + system.prediction.powers),
        )
        for k in range(1 + system.prediction.powers):
            weight = a ** (k + 1) * phi_term(k, a * kappa)
            for j in range(k + 1):  # R^k = (by_v + by_output D)^k
                term = weight * math.comb(k, j) * by_v ** (k - j) * by_output**j
                on_v[j] += term * (kappa + by_v)
                on_output[j] += term * by_output
        pairs = zip(on_v[1:], on_output[1:], strict=True)
        weights = (on_output[0], *(w for pair in pairs for w in pair))
        return [Kick(middle, slot(1) * (1.0 + on_v[0]) + raw, raw=weights)]


def phi_term(k: int, z: float) -> float:
    """The k-th derivative of (e^z - 1) / z by k!: the integral of s^k e^(z s) over [0, 1] by k!."""
    s, weights = quadrature(48)
    return float(weights @ (s**k * np.exp(z * s))) / math.factorial(k)


@cache
def quadrature(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss and Legendre's rule on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return 0.5 * (nodes + 1.0), 0.5 * weights
