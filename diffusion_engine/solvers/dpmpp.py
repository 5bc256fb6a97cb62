"""DPM-Solver++: multistep solvers on `denoised`, deterministic and stochastic, and the singlestep SDE.

h = lam_t - lam_s; r0 = (lam_s - lam_s1) / h and r1 = (lam_s1 - lam_s2) / h compare earlier steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from .. import checks
from ..plan.linear import Linear, denoised, normal, x
from ..processes import GaussianProcess, Point
from .base import STARTS, Points, Ring, Solver, Update, first_order_only, steps, transfer
from .euler import ancestral, level


def first_difference(s: Point, t: Point, past: list[tuple[Point, Linear]]) -> Linear:
    """D1 = (m0 - m1) / r0."""
    s1, m1 = past[0]
    return (denoised - m1) * ((t.lam - s.lam) / (s.lam - s1.lam))


def differences(
    s: Point, t: Point, past: list[tuple[Point, Linear]], kappa: float
) -> tuple[Linear, Linear]:
    """D1 = A + r0 / (r0 + r1) (A - B) and D2 = kappa (A - B) / (r0 + r1) of three predictions."""
    (s1, m1), (s2, m2) = past[:2]
    h = t.lam - s.lam
    r0, r1 = (s.lam - s1.lam) / h, (s1.lam - s2.lam) / h
    a, b = (denoised - m1) / r0, (m1 - m2) / r1
    return a + (a - b) * (r0 / (r0 + r1)), (a - b) * (kappa / (r0 + r1))


def second_weight(h: float, variant: str) -> float:
    """Weight of alpha_t D1: (1 - e^-h) / 2 (midpoint), or 1 - (1 - e^-h) / h (heun)."""
    return -math.expm1(-h) / 2.0 if variant == "midpoint" else math.expm1(-h) / h + 1.0


def check_variant(variant: str) -> None:
    if variant not in ("midpoint", "heun"):
        raise ValueError(f"variant={variant!r}: choose 'midpoint' or 'heun'")


def check_kappa(kappa: float) -> None:
    if kappa not in (1.0, 2.0):
        raise ValueError(f"kappa={kappa!r}: 2 is exact, 1 as in the published codes")


def usable_order(order: int, i: int, points: Points, past: int, lower_final: bool) -> int:
    """Order of step i: as many predictions as there are, falling to 1 at the end."""
    left = len(points) - 1 - i
    if first_order_only(points[i], points[i + 1]):
        return 1
    return min(order, past + 1, left) if lower_final else min(order, past + 1)


@dataclass(frozen=True)
class DPMpp2M(Solver):
    """DPM-Solver++(2M): (sigma_t / sigma_s) x + alpha_t (1 - e^-h) (D0 + D1 / 2).

    variant  weight of D1: "midpoint", or "heun", the exact integral of the linear interpolation
    lower_order_final  the last step is first order
    """

    name: ClassVar[str] = "dpmpp_2m"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++), algorithm 2"
    order = 2
    variant: str = "midpoint"
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        check_variant(self.variant)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(1)
        for i, (s, t) in enumerate(steps(points)):
            new = transfer(s, t, x, denoised)
            if usable_order(2, i, points, len(ring.past), self.lower_order_final) == 2:
                weight = t.alpha * second_weight(t.lam - s.lam, self.variant)
                new = new + weight * first_difference(s, t, ring.past)
            yield Update(s, {0: new} | keep(ring, s, i, points), t)


def keep(ring: Ring, s: Point, i: int, points: Points) -> dict[int, Linear]:
    """Stores `denoised` for the steps to come, if there are any."""
    return {ring.store(s): denoised} if i + 2 < len(points) else {}


@dataclass(frozen=True)
class DPMpp3M(Solver):
    """DPM-Solver++(3M): adds alpha_t (p2 D1 - p3 D2), p2 = 1 - (1 - e^-h) / h, p3 = p2 / h - 1 / 2.

    kappa  factor of D2. 2 is the Taylor expansion's and third order; 1 is what the published codes
           use, second order.
    start  the first step: "euler", or "heun", of second order by a call more
    lower_order_final  the last steps have orders 2 and 1. The run has order 3 with start="heun" and
           lower_order_final=False, else 2
    """

    name: ClassVar[str] = "dpmpp_3m"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++), section 4"
    differs: ClassVar[str] = (
        "D2 has the Taylor expansion's factor 2, for third order, where the published codes have 1 (kappa=1)"
    )
    kappa: float = 2.0
    start: str = "euler"
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        check_kappa(self.kappa)
        checks.one_of("start", self.start, STARTS)

    @property
    def order(self) -> int:
        # One step of order p leaves the run no more than order p + 1.
        return 2 if self.start == "euler" or self.lower_order_final else self.asymptotic

    @property
    def asymptotic(self) -> int:
        return 3 if self.kappa == 2.0 else 2

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(2)
        for i, (s, t) in enumerate(steps(points)):
            new, h = transfer(s, t, x, denoised), t.lam - s.lam
            order = usable_order(3, i, points, len(ring.past), self.lower_order_final)
            if order == 2:
                weight = t.alpha * second_weight(h, "midpoint")
                new = new + weight * first_difference(s, t, ring.past)
            elif order == 3:
                d1, d2 = differences(s, t, ring.past, self.kappa)
                p2 = math.expm1(-h) / h + 1.0
                new = new + t.alpha * p2 * d1 - t.alpha * (p2 / h - 0.5) * d2
            kept = keep(ring, s, i, points)
            if i == 0 and self.start == "heun" and not first_order_only(s, t):
                yield from heun_in_lam(s, t, new, kept)
            else:
                yield Update(s, {0: new} | kept, t)


def heun_in_lam(s: Point, t: Point, euler: Linear, kept: dict[int, Linear]) -> Iterator[Update]:
    """Heun's first step in lam: with the second prediction m, alpha_t (1 - (1 - e^-h) / h) (m - m0) more.

    Slot 2 holds the end of Euler's step, slot 1 m0 for the steps to come.
    """
    weight = t.alpha * second_weight(t.lam - s.lam, "heun")
    yield Update(s, kept | {0: euler - weight * denoised, 2: euler}, None)
    yield Update(t, {0: x + weight * denoised}, t, read=(2,))


@dataclass(frozen=True)
class Stochastic(Solver):
    """Options of the solvers of the reverse SDE.

    eta      amount of noise: h becomes (1 + eta) h in the exponent of the drift
    s_noise  multiplies the noise
    """

    eta: float = 1.0
    s_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.eta < 0.0:
            raise ValueError(f"eta={self.eta:g}: an amount of noise is 0 or above")

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0

    def first_order(self, s: Point, t: Point) -> Linear:
        """sigma_t/sigma_s e^(-eta h) x + alpha_t (1 - e^(-(1+eta) h)) D0 + noise."""
        drift = self.eta * (t.lam - s.lam) if self.eta else 0.0  # h may be infinite
        decay = t.sigma / s.sigma * math.exp(-drift)
        noise = t.sigma * math.sqrt(-math.expm1(-2.0 * drift)) * self.s_noise
        mean = decay * x + (t.alpha - decay * s.alpha) * denoised
        return mean + noise * normal(0)


@dataclass(frozen=True)
class DPMpp2MSDE(Stochastic):
    """DPM-Solver++(2M) for the reverse SDE.

    variant  weight of D1, "midpoint" or "heun"
    """

    name: ClassVar[str] = "dpmpp_2m_sde"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++), appendix; k-diffusion"
    order = 2
    variant: str = "midpoint"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variant(self.variant)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(1)
        for i, (s, t) in enumerate(steps(points)):
            new = self.first_order(s, t)
            if usable_order(2, i, points, len(ring.past), False) == 2:
                weight = t.alpha * second_weight((1.0 + self.eta) * (t.lam - s.lam), self.variant)
                new = new + weight * first_difference(s, t, ring.past)
            yield Update(s, {0: new} | keep(ring, s, i, points), t)


@dataclass(frozen=True)
class DPMpp3MSDE(Stochastic):
    """DPM-Solver++(3M) for the reverse SDE.

    kappa  factor of D2: 1 as published, of second order, or the Taylor expansion's 2, third without noise
    """

    name: ClassVar[str] = "dpmpp_3m_sde"
    source: ClassVar[str] = "k-diffusion"
    order = 2
    kappa: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kappa(self.kappa)

    @property
    def asymptotic(self) -> int:
        return 3 if self.kappa == 2.0 and self.eta == 0.0 else 2

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(2)
        for i, (s, t) in enumerate(steps(points)):
            new, h = self.first_order(s, t), (1.0 + self.eta) * (t.lam - s.lam)
            order = usable_order(3, i, points, len(ring.past), False)
            if order > 1:
                f2 = math.expm1(-h) / h + 1.0
                if order == 2:
                    new = new + t.alpha * f2 * first_difference(s, t, ring.past)
                else:
                    d1, d2 = differences(s, t, ring.past, self.kappa)
                    new = new + t.alpha * f2 * d1 - t.alpha * (f2 / h - 0.5) * d2
            yield Update(s, {0: new} | keep(ring, s, i, points), t)


@dataclass(frozen=True)
class DPMppSDE(Stochastic):
    """DPM-Solver++ for the SDE, singlestep: an ancestral half step in lam, then the full one with
    the prediction made there.

    Both take the noise of one path, W over v = e^(2 lam): of the whole step's normal

        z = sqrt(r) z_half + sqrt(1 - r) z_rest,   r = (v_half - v_s) / (v_t - v_s) = 1 / (1 + e^h)

    the first part is the half step's, without which the state there knows nothing of the noise to come and
    the law is first order.

    r         where the middle call lies, a share of h between 0 and 1
    one_path  False draws the whole step's noise anew, as k-diffusion does where its noise keeps no path
    """

    name: ClassVar[str] = "dpmpp_sde"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++); k-diffusion"
    differs: ClassVar[str] = (
        "the path's clock is v, in which its noise is Brownian, where k-diffusion's is sigma"
    )
    calls: ClassVar[int] = 2
    r: float = 0.5
    one_path: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 < self.r < 1.0:
            raise ValueError(f"r={self.r:g}: the middle call lies between 0 and 1 of a step")

    @property
    def order(self) -> int:
        return 2 if self.one_path or self.eta == 0.0 else 1

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            whole, noise = self.to(s, t)
            if first_order_only(s, t):
                yield Update(s, {0: whole + noise * normal(0)}, t)
                continue
            middle = process.at_lam((1.0 - self.r) * s.lam + self.r * t.lam)
            known, rest = self.noises(t.lam - s.lam)
            half, half_noise = self.to(s, middle)
            # Slot 0 takes of the whole step what is known before the second call.
            partial = whole["S0"] * x + known * noise * normal(0)
            partial = partial + (1.0 - 0.5 / self.r) * whole["D"] * denoised
            first = {0: partial, 1: half + half_noise * normal(0)}
            yield Update(s, first, None, span=(s, middle))
            end = x + 0.5 / self.r * whole["D"] * denoised + rest * noise * normal(0)
            taken = (middle, t) if self.one_path else (s, t)
            yield Update(middle, {0: end}, t, read=(1,), span=taken)

    def noises(self, h: float) -> tuple[float, float]:
        """Of the whole step's normal the parts of those that the two calls draw."""
        if not self.one_path:
            return 0.0, 1.0
        at_half = self.r == 0.5
        share = (
            1.0 / (1.0 + math.exp(h))
            if at_half
            else math.expm1(2.0 * self.r * h) / math.expm1(2.0 * h)
        )
        return math.sqrt(share), math.sqrt(1.0 - share)

    def to(self, s: Point, t: Point) -> tuple[Linear, float]:
        """An ancestral step of x from s to t along `denoised`, and the scale of its noise."""
        down, up = ancestral(s, t, self.eta)
        return transfer(s, level(t, down), x, denoised), t.alpha * up * self.s_noise
