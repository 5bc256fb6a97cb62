"""DPM-Solver++ and DPM-Solver: multistep solvers of the ODE on `denoised`, and on eps.

h = lam_t - lam_s; r0 = (lam_s - lam_s1) / h and r1 = (lam_s1 - lam_s2) / h compare earlier steps. What is
written for `denoised` holds for eps with sigma_t in place of alpha_t and -h in place of h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, slot, uncond, x
from ..processes import GaussianProcess, Point
from . import cfg_pp
from .base import STARTS, Points, Ring, Solver, Update, eps_of, first_order_only, steps, transfer

Past = list[tuple[Point, Linear]]


class Form(NamedTuple):
    """What is expanded in lam: the new prediction at s, what multiplies it in x_t, and the sign of h."""

    predicted: Callable[[Point], Linear]
    scale: Callable[[Point], float]
    sign: float


DATA = Form(lambda s: denoised, lambda t: t.alpha, 1.0)
NOISE = Form(eps_of, lambda t: t.sigma, -1.0)


def first_difference(s: Point, t: Point, past: Past, newest: Linear = denoised) -> Linear:
    """D1 = (m0 - m1) / r0."""
    s1, m1 = past[0]
    return (newest - m1) * ((t.lam - s.lam) / (s.lam - s1.lam))


def differences(
    s: Point, t: Point, past: Past, kappa: float, newest: Linear = denoised
) -> tuple[Linear, Linear]:
    """D1 = A + r0 / (r0 + r1) (A - B) and D2 = kappa (A - B) / (r0 + r1) of three predictions."""
    (s1, m1), (s2, m2) = past[:2]
    h = t.lam - s.lam
    r0, r1 = (s.lam - s1.lam) / h, (s1.lam - s2.lam) / h
    a, b = (newest - m1) / r0, (m1 - m2) / r1
    return a + (a - b) * (r0 / (r0 + r1)), (a - b) * (kappa / (r0 + r1))


def second_weight(h: float, variant: str) -> float:
    """Weight of alpha_t D1: (1 - e^-h) / 2 (midpoint), or 1 - (1 - e^-h) / h (heun)."""
    return -math.expm1(-h) / 2.0 if variant == "midpoint" else math.expm1(-h) / h + 1.0


def third_weight(h: float) -> float:
    """Weight of -alpha_t D2: (1 - (1 - e^-h) / h) / h - 1 / 2."""
    return second_weight(h, "heun") / h - 0.5


def check_variant(variant: str) -> None:
    if variant not in ("midpoint", "heun"):
        raise ValueError(f"variant={variant!r}: choose 'midpoint' or 'heun'")


def check_kappa(kappa: float) -> None:
    if kappa not in (1.0, 2.0):
        raise ValueError(f"kappa={kappa!r}: 2 is exact, 1 as in the published codes")


def usable_order(
    order: int, i: int, points: Points, past: int, lower_final: bool, euler_final: bool = False
) -> int:
    """Order of step i: as many predictions as there are, falling to 1 at the end."""
    left = len(points) - 1 - i
    if first_order_only(points[i], points[i + 1]) or (euler_final and left == 1):
        return 1
    return min(order, past + 1, left) if lower_final else min(order, past + 1)


def keep(
    ring: Ring, s: Point, i: int, points: Points, newest: Linear = denoised
) -> dict[int, Linear]:
    """Stores the prediction for the steps to come, if there are any."""
    return {ring.store(s): newest} if i + 2 < len(points) else {}


@dataclass(frozen=True)
class DPMpp2M(Solver):
    """DPM-Solver++(2M): (sigma_t / sigma_s) x + alpha_t (1 - e^-h) (D0 + D1 / 2).

    variant  weight of D1: "midpoint", or "heun", the exact integral of the linear interpolation
    lower_order_final  the last step is first order
    cfg_pp   the step keeps the noise of the unconditional estimate D_u, and D1 is (D - D_u1) / r0: CFG++,
             whose scale lies in [0, 1]
    """

    name: ClassVar[str] = "dpmpp_2m"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++), algorithm 2"
    form: ClassVar[Form] = DATA
    order = 2
    variant: str = "midpoint"
    lower_order_final: bool = True
    cfg_pp: bool = False

    def __post_init__(self) -> None:
        check_variant(self.variant)

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        if self.cfg_pp and points[-1].lam < points[0].lam:
            return "cfg_pp in two calls does not lead back; encode with 'ddim', cfg_pp=True"
        return cfg_pp.objection(parameterisation) if self.cfg_pp else None

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring, form = Ring(1), self.form
        for i, (s, t) in enumerate(steps(points)):
            new, newest = transfer(s, t, x, denoised), form.predicted(s)
            if usable_order(2, i, points, len(ring.past), self.lower_order_final) == 2:
                weight = form.scale(t) * second_weight(form.sign * (t.lam - s.lam), self.variant)
                new = new + weight * first_difference(s, t, ring.past, newest)
            if self.cfg_pp:
                new, newest = new + cfg_pp.renoised(s, t), uncond
            yield Update(s, {0: new} | keep(ring, s, i, points, newest), t)


@dataclass(frozen=True)
class DPMpp3M(Solver):
    """DPM-Solver++(3M): adds alpha_t (p2 D1 - p3 D2), p2 = 1 - (1 - e^-h) / h, p3 = p2 / h - 1 / 2.

    kappa  factor of D2. 2 is the Taylor expansion's and third order; 1 is what the published codes
           use, second order.
    start  the first step: "euler", or "heun", of second order by a call more
    variant  weight of D1 in the steps of order 2: "midpoint", or "heun", p2
    lower_order_final  the last steps have orders 2 and 1. The run has order 3 with start="heun" and
           lower_order_final=False, else 2
    euler_at_final  the last step alone has order 1
    """

    name: ClassVar[str] = "dpmpp_3m"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++), section 4"
    differs: ClassVar[str] = (
        "D2 has the Taylor expansion's factor 2, for third order, where the published codes have 1 (kappa=1)"
    )
    form: ClassVar[Form] = DATA
    kappa: float = 2.0
    start: str = "euler"
    variant: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False

    def __post_init__(self) -> None:
        check_kappa(self.kappa)
        check_variant(self.variant)
        checks.one_of("start", self.start, STARTS)

    @property
    def order(self) -> int:
        # One step of order p leaves the run no more than order p + 1.
        ends = self.start == "euler" or self.lower_order_final or self.euler_at_final
        return 2 if ends else self.asymptotic

    @property
    def asymptotic(self) -> int:
        return 3 if self.kappa == 2.0 else 2

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring, form, ends = Ring(2), self.form, (self.lower_order_final, self.euler_at_final)
        for i, (s, t) in enumerate(steps(points)):
            new, h, scale = (
                transfer(s, t, x, denoised), form.sign * (t.lam - s.lam), form.scale(t)
            )  # fmt: skip
            newest = form.predicted(s)
            order = usable_order(3, i, points, len(ring.past), *ends)
            if order == 2:
                d1 = first_difference(s, t, ring.past, newest)
                new = new + scale * second_weight(h, self.variant) * d1
            elif order == 3:
                d1, d2 = differences(s, t, ring.past, self.kappa, newest)
                new = new + scale * (second_weight(h, "heun") * d1 - third_weight(h) * d2)
            kept = keep(ring, s, i, points, newest)
            if i == 0 and self.start == "heun" and not first_order_only(s, t):
                yield from heun_in_lam(form, s, t, new, kept)
            else:
                yield Update(s, {0: new} | kept, t)


def heun_in_lam(
    form: Form, s: Point, t: Point, euler: Linear, kept: dict[int, Linear]
) -> Iterator[Update]:
    """Heun's first step in lam: with the second prediction m, alpha_t (1 - (1 - e^-h) / h) (m - m0) more.

    Slot 2 holds the end of Euler's step, slot 1 m0 for the steps to come.
    """
    weight = form.scale(t) * second_weight(form.sign * (t.lam - s.lam), "heun")
    yield Update(s, kept | {0: euler - weight * form.predicted(s), 2: euler}, None)
    late = denoised if form is DATA else eps_of(t, slot(2))
    yield Update(t, {0: x + weight * late}, t, read=(2,))


@dataclass(frozen=True)
class DPMSolver2M(DPMpp2M):
    """DPM-Solver of two calls: alpha_t / alpha_s x - sigma_t (e^h - 1) (E0 + D1 / 2), D1 of E0 and E1.

    variant  weight of D1: "midpoint", or "heun", the exact integral of the linear interpolation
    lower_order_final  the last step is first order
    """

    cfg_pp: ClassVar[bool] = False  # type: ignore[misc]  # published on estimates of x0 alone
    name: ClassVar[str] = "dpm_solver_2m"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver), multistep"
    form: ClassVar[Form] = NOISE


@dataclass(frozen=True)
class DPMSolver3M(DPMpp3M):
    """DPM-Solver of three calls: adds -sigma_t (q2 D1 + q3 D2), q2 = (e^h - 1) / h - 1, q3 = q2 / h - 1 / 2.

    Options are dpmpp_3m's. With kappa=2 it is 'deis' of three calls interpolated in log rho.
    """

    name: ClassVar[str] = "dpm_solver_3m"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver), multistep"
    form: ClassVar[Form] = NOISE
