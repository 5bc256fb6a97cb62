"""Solvers of the reverse SDE in lam: DPM-Solver++ multistep and singlestep, and DPM-Solver on eps.

h = lam_t - lam_s, as in the solvers of the ODE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..plan.linear import Linear, denoised, normal, x
from ..processes import GaussianProcess, Point
from .base import Points, Ring, Solver, Update, eps_of, first_order_only, steps, transfer
from .dpmpp import (
    check_kappa,
    check_variant,
    differences,
    first_difference,
    keep,
    second_weight,
    third_weight,
    usable_order,
)
from .euler import ancestral, level


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
    lower_order_final  the last step is first order
    """

    name: ClassVar[str] = "dpmpp_2m_sde"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++), appendix; k-diffusion"
    order = 2
    variant: str = "midpoint"
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variant(self.variant)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(1)
        for i, (s, t) in enumerate(steps(points)):
            new = self.first_order(s, t)
            if usable_order(2, i, points, len(ring.past), self.lower_order_final) == 2:
                weight = t.alpha * second_weight((1.0 + self.eta) * (t.lam - s.lam), self.variant)
                new = new + weight * first_difference(s, t, ring.past)
            yield Update(s, {0: new} | keep(ring, s, i, points), t)


@dataclass(frozen=True)
class DPMpp3MSDE(Stochastic):
    """DPM-Solver++(3M) for the reverse SDE.

    kappa  factor of D2: 1 as published, of second order, or the Taylor expansion's 2, third without noise
    variant  weight of D1 in the steps of order 2, "heun" as published, or "midpoint"
    flipped  D2's weight has 1 / 2 less where the expansion has 1 / 2 more, as in diffusers: first order
    lower_order_final  the last steps have orders 2 and 1
    euler_at_final  the last step alone has order 1
    """

    name: ClassVar[str] = "dpmpp_3m_sde"
    source: ClassVar[str] = "k-diffusion"
    differs: ClassVar[str] = (
        "D2's weight is the expansion's, where diffusers' has 1 / 2 of the other sign (flipped=True)"
    )
    kappa: float = 1.0
    variant: str = "heun"
    flipped: bool = False
    lower_order_final: bool = False
    euler_at_final: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kappa(self.kappa)
        check_variant(self.variant)

    @property
    def order(self) -> int:
        return 1 if self.flipped else 2

    @property
    def asymptotic(self) -> int:
        return 3 if self.kappa == 2.0 and self.eta == 0.0 and not self.flipped else self.order

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring, ends = Ring(2), (self.lower_order_final, self.euler_at_final)
        for i, (s, t) in enumerate(steps(points)):
            new, h = self.first_order(s, t), (1.0 + self.eta) * (t.lam - s.lam)
            order = usable_order(3, i, points, len(ring.past), *ends)
            if order == 2:
                d1 = first_difference(s, t, ring.past)
                new = new + t.alpha * second_weight(h, self.variant) * d1
            elif order == 3:
                d1, d2 = differences(s, t, ring.past, self.kappa)
                third = third_weight(h) + self.flipped
                new = new + t.alpha * (second_weight(h, "heun") * d1 - third * d2)
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


@dataclass(frozen=True)
class DPMSolverSDE(Stochastic):
    """DPM-Solver for the reverse SDE: alpha_t / alpha_s x - (1 + eta) sigma_t (e^h - 1) (E0 + D1 / 2) + c z.

    c = sigma_t sqrt(eta (e^2h - 1)). Only the drift of x is integrated exactly, so that a step leaves another
    noise level than its point's. Steps from pure noise and to clean data are those of 'dpmpp_2m_sde'.

    max_order  2, or 1 without D1
    variant    weight of D1, "midpoint" or "heun"
    lower_order_final  the last step is first order
    """

    name: ClassVar[str] = "dpm_solver_sde"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++), appendix, with eps for x0; diffusers"
    keeps_noise: ClassVar[bool] = False
    max_order: int = 2
    variant: str = "midpoint"
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_variant(self.variant)
        if self.max_order not in (1, 2):
            raise ValueError(f"max_order={self.max_order!r}: {self.name} has orders 1 and 2")

    @property
    def order(self) -> int:
        return self.max_order

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(self.max_order - 1)
        for i, (s, t) in enumerate(steps(points)):
            past = len(ring.past)
            order = usable_order(self.max_order, i, points, past, self.lower_order_final)
            new = self.first_order(s, t) if first_order_only(s, t) else self.on_eps(s, t)
            if order == 2:
                weight = (1.0 + self.eta) * t.sigma * second_weight(s.lam - t.lam, self.variant)
                new = new + weight * first_difference(s, t, ring.past, eps_of(s))
            kept = keep(ring, s, i, points, eps_of(s)) if self.max_order == 2 else {}
            yield Update(s, {0: new} | kept, t)

    def on_eps(self, s: Point, t: Point) -> Linear:
        """The step with eps frozen."""
        h = t.lam - s.lam
        mean = t.alpha / s.alpha * x - (1.0 + self.eta) * t.sigma * math.expm1(h) * eps_of(s)
        noise = t.sigma * math.sqrt(self.eta * math.expm1(2.0 * h)) if self.eta else 0.0
        return mean + noise * self.s_noise * normal(0)
