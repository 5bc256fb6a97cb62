"""DPM-Solver-12 and DPM-Solver-23 (Lu et al. 2022, DPM-Solver, appendix C).

Between s and t, h = lam_t - lam_s, eps_i what the call i at lam_s + r_i h says of the noise,

    x1_t = alpha_t / alpha_s x_s - sigma_t (e^h - 1) eps_0
    x2_t = x1_t - sigma_t / (2 r_1) (e^h - 1) (eps_1 - eps_0)
    x3_t = x1_t - sigma_t / r_2 ((e^h - 1) / h - 1) (eps_2 - eps_0)

are of order 1, 2 and 3. Two of neighbouring orders are the ends of a step, whose error is their difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import checks
from ..plan.linear import Linear
from ..processes import GaussianProcess, Point
from ..solvers.base import transfer
from ..solvers.euler import ancestral, level
from .embedded import STATE, TOLERANCE, Embedded, Step, above_0, estimate

RULES = ("sample", "batch")


class PID:
    """h *= 1 + arctan(u_n^b1 u_(n-1)^b2 u_(n-2)^b3 - 1), u the inverse errors of this step and of the last
    two that were good; a step is good where that factor is at least `safety` (Soderlind 2003; k-diffusion).
    """

    def __init__(self, h: float, p: float, i: float, d: float, order: float, safety: float) -> None:
        self.h, self.safety = h, safety
        self._powers = ((p + i + d) / order, -(p + 2.0 * d) / order, d / order)
        self._past: tuple[float, float] | None = None

    def accepts(self, error: float, length: float) -> bool:
        inverse = 1.0 / (error + 1e-8)
        past = self._past or (inverse, inverse)
        terms = zip((inverse, *past), self._powers, strict=True)
        factor = 1.0 + math.atan(math.prod(u**power for u, power in terms) - 1.0)
        good = factor >= self.safety
        self._past = (inverse, past[0]) if good else past
        self.h *= factor
        return good


@dataclass(frozen=True)
class DPMAdaptive(Embedded):
    """DPM-Solver-12 or -23 in lam, each sample with steps of its own.

    The error is the root of the mean square of (low - end) / max(atol, rtol max(|low|, |low of before|)).

    order   2 for DPM-Solver-12, 3 for DPM-Solver-23; calls a step
    rtol    relative tolerance, above 0
    atol    absolute tolerance, above 0, of x = alpha x0 + sigma eps
    h_init  first step tried, in lam
    pcoeff, icoeff, dcoeff  of the proportional, integral and differential part of the controller
    accept_safety  the factor of h from which on a step is good, above 0, 1 at most
    eta     amount of fresh noise, 0 (none) to 1: a step leads to a lower level, and noise up from it
    s_noise  multiplies the fresh noise
    rule    "sample", steps of its own for each sample, or "batch", k-diffusion's: one error and the same
            steps for all samples of a request that run together, which then depend on one another
    max_calls  of the network, beyond which a sample is given up with an error
    """

    name: ClassVar[str] = "dpm_adaptive"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver), appendix C; k-diffusion"
    order: int = 3
    rtol: float = 0.05
    atol: float = 0.0078
    h_init: float = 0.05
    pcoeff: float = 0.0
    icoeff: float = 1.0
    dcoeff: float = 0.0
    accept_safety: float = 0.81
    eta: float = 0.0
    s_noise: float = 1.0
    rule: str = "sample"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("order", self.order, (2, 3))
        checks.one_of("rule", self.rule, RULES)
        for name in ("rtol", "atol"):
            checks.settle(self, name, above_0, TOLERANCE)
        checks.settle(self, "h_init", above_0, "a step is a finite number above 0")
        checks.settle(self, "accept_safety", above_0, "give a number above 0, as 0.81")
        if self.accept_safety > 1.0:
            raise ValueError(
                f"accept_safety={self.accept_safety:g}: a step without error would be taken again; give 1 at "
                "most, as 0.81"
            )
        for name in ("pcoeff", "icoeff", "dcoeff", "s_noise"):
            checks.settle(self, name, checks.number)
        checks.settle(self, "eta", checks.number)
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta={self.eta:g}: the amount of fresh noise lies between 0 and 1")

    @property
    def together(self) -> bool:  # type: ignore[override]
        return self.rule == "batch"

    def place(self, at: Point) -> float:
        return at.lam

    def point(self, process: GaussianProcess, place: float) -> Point:
        return process.at_lam(place)

    def lengths(self) -> PID:
        order = 1.5 if self.eta else self.order
        parts = self.pcoeff, self.icoeff, self.dcoeff
        return PID(self.h_init, *parts, order, self.accept_safety)

    def allowed(self, before: Tensor, end: Tensor, low: Tensor) -> Tensor:
        return (self.rtol * low.abs().maximum(before.abs())).clamp(min=self.atol)

    def kept(self, end: Tensor, low: Tensor) -> Tensor:
        return low

    def leaves(self, process: GaussianProcess, first: Point) -> Point | None:
        """From pure noise, where lam is infinite. Of DDIM's step to alpha / sigma = a the error is some
        a^2 / 2 for data of a variance of 1, a tenth of atol here."""
        return process.at_ratio((0.2 * self.atol) ** -0.5) if first.alpha == 0.0 else None

    def step(self, process: GaussianProcess, s: Point, t: Point, last: Point) -> Step:
        lower, noise = t, 0.0
        if self.eta:
            down = max(ancestral(s, t, self.eta)[0], last.ratio)
            lower, noise = level(t, down), t.alpha * math.sqrt(t.ratio**2 - down**2) * self.s_noise
        h, r1, r2 = lower.lam - s.lam, 1.0 / self.order, 2.0 / 3.0
        eps = [_eps(s, STATE, 0)]

        def first(to: Point) -> Linear:
            return transfer(s, to, STATE, estimate(0))

        def bent(to: Point, i: int, r: float) -> Linear:
            """With the slope of eps that call i shows, at r h."""
            k = to.lam - s.lam
            slope = (eps[i] - eps[0]) / (r * h)
            return first(to) - to.sigma * (math.expm1(k) - k) * slope

        near = process.at_lam(s.lam + r1 * h)
        calls = [(near, first(near))]
        eps.append(_eps(*calls[0], 1))
        second = first(lower) - lower.sigma / (2.0 * r1) * math.expm1(h) * (eps[1] - eps[0])
        if self.order == 2:
            return Step(calls, second, first(lower), noise)
        far = process.at_lam(s.lam + r2 * h)
        calls.append((far, bent(far, 1, r1)))
        eps.append(_eps(*calls[1], 2))
        return Step(calls, bent(lower, 2, r2), second, noise)


def _eps(at: Point, state: Linear, i: int) -> Linear:
    """What the call i says of the noise in its state."""
    return (state - at.alpha * estimate(i)) / at.sigma
