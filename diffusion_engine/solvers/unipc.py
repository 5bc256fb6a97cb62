"""UniPC: a predictor and a corrector on `denoised`, or on eps, that share their network call."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..plan.linear import Linear, denoised, slot, x
from ..processes import GaussianProcess, Point
from .base import Points, Ring, Solver, Update, steps, transfer
from .dpmpp import DATA, NOISE, Form, Past, usable_order


def bh_system(nodes: list[float], h: float, variant: str) -> tuple[np.ndarray, np.ndarray, float]:
    """The Vandermonde system R rho = b and B(h) of Zhao et al. 2023, eq. 5, for data prediction.

    nodes  r_1 ... r_p, the corrector's node 1 last
    h      negative for noise prediction
    """
    hh = -h
    big_b = hh if variant == "bh1" else math.expm1(hh)
    matrix = np.vander(nodes, increasing=True).T
    phi, b = math.expm1(hh) / hh - 1.0, []
    for i in range(1, len(nodes) + 1):
        b.append(phi * math.factorial(i) / big_b)
        phi = phi / hh - 1.0 / math.factorial(i + 1)
    return matrix, np.asarray(b), big_b


def predictor_weights(nodes: list[float], h: float, variant: str) -> tuple[np.ndarray, float]:
    """rho of UniP over its earlier nodes; 1/2 for a single one."""
    matrix, b, big_b = bh_system([*nodes, 1.0], h, variant)
    if len(nodes) == 1:
        return np.array([0.5]), big_b
    return np.linalg.solve(matrix[:-1, :-1], b[:-1]), big_b


def corrector_weights(nodes: list[float], h: float, variant: str) -> tuple[np.ndarray, float]:
    """rho of UniC over the earlier nodes and the new one; 1/2 with the new one alone."""
    matrix, b, big_b = bh_system([*nodes, 1.0], h, variant)
    if not nodes:
        return np.array([0.5]), big_b
    return np.linalg.solve(matrix, b), big_b


@dataclass(frozen=True)
class UniPC(Solver):
    """Unified predictor-corrector (Zhao et al. 2023, algorithms 1 and 2), one call a step.

    max_order  1 to 3, the highest order of a step's prediction; the first steps have that of the calls so far
    variant    B(h): "bh1" is h, "bh2" is e^h - 1
    corrector  corrects each state with the prediction made on it, which is an order more; not after the last
               step
    disable_corrector  the steps, from 0, whose states are not corrected
    predict_x0  False expands eps in place of x0
    lower_order_final  the last steps have orders 2 and 1, and so the run 2 at most; without it, with the
               corrector, 3 at most

    Slots: 0 the predicted state, which the network reads, 1 the corrected one, then predictions.
    """

    name: ClassVar[str] = "unipc"
    source: ClassVar[str] = "Zhao et al. 2023, algorithms 1 and 2"
    max_order: int = 3
    variant: str = "bh2"
    corrector: bool = True
    disable_corrector: tuple[int, ...] = ()
    predict_x0: bool = True
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        if self.max_order not in (1, 2, 3):
            raise ValueError(f"max_order={self.max_order!r}: UniPC has orders 1 to 3")
        if self.variant not in ("bh1", "bh2"):
            raise ValueError(f"variant={self.variant!r}: UniPC takes 'bh1' or 'bh2'")

    @property
    def order(self) -> int:
        # The first step is corrected to order 2 at best, and the last of lower_order_final has order 1.
        ends = 3 if self.corrector and not self.lower_order_final else 2
        return min(self.asymptotic, ends)

    @property
    def asymptotic(self) -> int:
        return self.max_order + self.corrector

    @property
    def form(self) -> Form:
        return DATA if self.predict_x0 else NOISE

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(
            self.max_order if self.corrector else self.max_order - 1,
            first=2 if self.corrector else 1,
        )
        before: tuple[Point, int] | None = None  # start and order of the step to be corrected
        for i, (s, t) in enumerate(steps(points)):
            corrected = x
            if before is not None and self.corrector and i - 1 not in self.disable_corrector:
                corrected = self.correct(*before, s, ring.past)
            past = len(ring.past)
            order = usable_order(self.max_order, i, points, past, self.lower_order_final)
            new = {0: self.predict(s, t, corrected, ring.past[: order - 1])}
            if i + 2 < len(points):
                if self.corrector:
                    new[1] = corrected
                if ring.size:
                    new[ring.store(s)] = self.form.predicted(s)
            before = (s, order) if s.alpha > 0.0 else None
            yield Update(s, new, t)

    def carried(self, s: Point, t: Point, state: Linear, m: Linear) -> Linear:
        """The first-order step with m, x0 or eps, frozen."""
        if self.predict_x0:
            return transfer(s, t, state, m)
        scale = t.alpha / s.alpha
        return scale * state + (t.sigma - scale * s.sigma) * m

    def predict(self, s: Point, t: Point, state: Linear, past: Past) -> Linear:
        """UniP: (sigma_t / sigma_s) x + alpha_t (1 - e^-h) m0 - alpha_t B sum rho_k D_k; of eps with sigma_t
        in place of alpha_t and -h in place of h."""
        if s.alpha == 0.0:
            return transfer(s, t, state, denoised)
        m0 = self.form.predicted(s)
        base = self.carried(s, t, state, m0)
        if not past:
            return base
        h = t.lam - s.lam
        nodes = [(at.lam - s.lam) / h for at, _ in past]
        rho, big_b = predictor_weights(nodes, self.form.sign * h, self.variant)
        for weight, node, (_, m) in zip(rho, nodes, past, strict=True):
            base = base - self.form.scale(t) * big_b * weight / node * (m - m0)
        return base

    def correct(self, s: Point, order: int, t: Point, past: Past) -> Linear:
        """UniC of the step s -> t, once the prediction at t is known; slot 1 holds the state at s."""
        h, m0 = t.lam - s.lam, past[0][1]
        nodes = [(at.lam - s.lam) / h for at, _ in past[1:order]]
        rho, big_b = corrector_weights(nodes, self.form.sign * h, self.variant)
        scale = self.form.scale(t) * big_b
        base = self.carried(s, t, slot(1), m0) - scale * rho[-1] * (self.form.predicted(t) - m0)
        for weight, node, (_, m) in zip(rho, nodes, past[1:order], strict=False):
            base = base - scale * weight / node * (m - m0)
        return base
