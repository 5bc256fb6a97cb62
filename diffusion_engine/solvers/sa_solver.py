"""SA-Solver: stochastic Adams methods in lam, a predictor and a corrector that share call and noise.

With tau of a step and h = lam_t - lam_s, of x0 interpolated over the newest predictions:

    x_t = sigma_t / sigma_s e^(-tau^2 h) x + sum_j b_j x0_j + sigma_t sqrt(1 - e^(-2 tau^2 h)) z
    b_j = alpha_t (1 + tau^2) int_s^t e^(-(1 + tau^2)(lam_t - lam)) L_j(lam) dlam

The corrector has x0 at t among its nodes, and the z of the predictor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import checks
from ..plan.linear import Linear, denoised, normal, slot, x
from ..processes import GaussianProcess, Point
from .adams import integrals
from .base import Points, Ring, Solver, Update, first_order_only, steps, transfer

Nodes = list[tuple[Point, Linear]]  # newest first
PREDICTED, BASE, STORED = 0, 1, 2  # slots


@dataclass(frozen=True)
class SASolver(Solver):
    """Stochastic Adams predictor and corrector (Xue et al. 2023, algorithm 1), one call a step.

    predictor_order  1 to 4 predictions; the first steps have those so far
    corrector_order  1 to 4, the one at the new state counted; 0 corrects nothing
    eta        tau, the amount of noise, within the levels s_tmin to s_tmax; 0 is the ODE. A subclass may
               write its own tau(s, t)
    s_tmin, s_tmax  range of sigma / alpha in which there is noise, ends included
    tau_at     the level of a step that has to lie within: its "end", or its "start" as in diffusers
    s_noise    multiplies the noise
    pece       a second call a step, of the corrected state, is the one that later steps take
    simple     two nodes have the weights of appendix D, a Taylor term in place of the integral, as diffusers'
    lower_order_final  the last steps have predictors of orders ..., 2 and 1, before one to clean data, and
               correctors of an order more
    final_corrector  so much more; 0 as in ComfyUI
    """

    name: ClassVar[str] = "sa_solver"
    source: ClassVar[str] = "Xue et al. 2023 (SA-Solver), eq. 14 and 17, algorithm 1"
    differs: ClassVar[str] = (
        "two nodes are interpolated as more are, where diffusers' have a Taylor term (simple=True)"
    )
    predictor_order: int = 3
    corrector_order: int = 4
    eta: float = 1.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    tau_at: str = "end"
    s_noise: float = 1.0
    pece: bool = False
    simple: bool = False
    lower_order_final: bool = True
    final_corrector: int = 1

    def __post_init__(self) -> None:
        checks.one_of("tau_at", self.tau_at, ("end", "start"))
        if self.eta < 0.0:
            raise ValueError(f"eta={self.eta:g}: an amount of noise is 0 or above")
        if self.predictor_order not in (1, 2, 3, 4):
            raise ValueError(f"predictor_order={self.predictor_order!r}: give 1 to 4")
        if self.corrector_order not in (0, 1, 2, 3, 4):
            raise ValueError(
                f"corrector_order={self.corrector_order!r}: give 1 to 4, or 0 for none"
            )
        if self.pece and not self.corrector_order:
            raise ValueError("pece=True calls at corrected states; give a corrector_order above 0")
        if self.final_corrector not in (0, 1):
            raise ValueError(f"final_corrector={self.final_corrector!r}: give 1, or ComfyUI's 0")

    @property
    def calls(self) -> int:  # type: ignore[override]
        return 2 if self.pece else 1

    @property
    def order(self) -> int:
        # The first step is corrected to order 2 at best; noise of one normal a step has order 2.
        ends = 3 if self.corrector_order and not self.lower_order_final else 2
        return min(self.asymptotic, ends)

    @property
    def asymptotic(self) -> int:
        p, c = self.predictor_order, self.corrector_order
        formula = min(c, p + 1) if c else p
        return min(formula, 2) if self.stochastic else formula

    @property
    def stochastic(self) -> bool:
        return self.eta > 0.0

    def tau(self, s: Point, t: Point) -> float:
        """Of the step from s to t; a step from pure noise has that of its end."""
        at = t if self.tau_at == "end" or s.alpha == 0.0 else s
        return self.eta if self.s_tmin <= at.ratio <= self.s_tmax else 0.0

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(max(self.predictor_order, self.corrector_order) - 1, STORED)
        left = (
            len(points) - 1 - (points[-1].sigma == 0.0)
        )  # steps from here that end at a finite lam
        before: tuple[Point, int] | None = (
            None  # start and number of nodes of the step to be corrected
        )
        for i, (s, t) in enumerate(steps(points)):
            last, state = i + 2 == len(points), x
            if before is not None and self.corrector_order:
                state = self.corrected(*before, s, ring)
                if self.pece:
                    yield Update(s, {PREDICTED: state}, None)
                    state = x
            count = self.usable(self.predictor_order, len(ring.past) + 1, left)
            new, base = self.predicted(s, t, state, [(s, denoised), *ring.past[: count - 1]])
            kept = {} if last else {BASE: base} if self.corrector_order else {}
            if not last and ring.size:
                kept[ring.store(s)] = denoised
            left -= 1
            nodes = self.usable(
                self.corrector_order, len(ring.past) + 1, left + 1 + self.final_corrector
            )
            before = (s, nodes) if s.alpha > 0.0 else None
            yield Update(s, {PREDICTED: new} | kept, t)

    def usable(self, order: int, known: int, left: int) -> int:
        """Nodes of a step: at most its order, those that are known, and what the end of a run leaves."""
        return min(order, known, max(left, 1)) if self.lower_order_final else min(order, known)

    def predicted(self, s: Point, t: Point, state: Linear, nodes: Nodes) -> tuple[Linear, Linear]:
        """The state at t, and what of it the corrector keeps: the old state and the noise."""
        if first_order_only(s, t):
            drift = math.inf if self.tau(s, t) else 0.0
        else:
            drift = self.tau(s, t) ** 2 * (t.lam - s.lam)
        decay = math.exp(-drift)
        noise = t.sigma * math.sqrt(-math.expm1(-2.0 * drift)) * self.s_noise
        down = Point(t.t, t.alpha, t.sigma * decay)
        if first_order_only(s, t):
            return transfer(s, down, state, denoised) + noise * normal(0), Linear()
        base = t.sigma / s.sigma * decay * state + noise * normal(0)
        return base + self.interpolated(s, t, nodes), base

    def corrected(self, s: Point, count: int, t: Point, ring: Ring) -> Linear:
        """The state at t, where the network was called at the predicted one."""
        nodes = [(t, denoised), *ring.past[: count - 1]]
        return slot(BASE) + self.interpolated(s, t, nodes)

    def interpolated(self, s: Point, t: Point, nodes: Nodes) -> Linear:
        """sum_j b_j x0_j over the step from s to t."""
        lams, rate = [at.lam for at, _ in nodes], 1.0 + self.tau(s, t) ** 2
        h = t.lam - s.lam
        if self.simple and len(nodes) == 2:
            slope = 0.5 * rate * h * h / (lams[0] - lams[1])
            at_s = nodes[0][1] if lams[0] == s.lam else nodes[1][1]
            whole = -math.expm1(-rate * h)
            return t.alpha * (whole * at_s + slope * (nodes[0][1] - nodes[1][1]))
        weights = integrals(
            lams, s.lam, t.lam, lambda lam: rate * np.exp(-rate * (t.lam - lam)), lambda lam: lam
        )
        return t.alpha * sum((b * m for b, (_, m) in zip(weights, nodes, strict=True)), Linear())
