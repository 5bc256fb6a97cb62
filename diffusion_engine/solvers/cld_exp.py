"""An exponential multistep method for the probability flow ODE of CLD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..plan import Row
from ..plan.linear import Linear, slot, x
from ..processes import CLD, Point
from .base import Points, Ring, Update, steps
from .cld import OUTPUT, CLDSolver, System

SUBSTEPS = 128  # of a step: weights are right to 1e-6 in runs of 3 steps, to 1e-8 from 10 steps on


@dataclass(frozen=True)
class CLDExponential(CLDSolver):
    """What the kernel knows of the velocity's score is integrated exactly, the rest extrapolated.

    With s_v = -v / Svv(t) - o(t) / l(t), Svv being v's variance given x0 and l its standard deviation given
    x0 and x, the ODE is linear but for o, which a mixed score's network predicts:

        u(t) = Psi(t, s) u(s) + sum_j C_j o_j,   C_j = integral of Psi(t, tau) (0, -Gamma beta / l) L_j(tau)

    L_j are the Lagrange polynomials in lam(tau) through the last `max_order` calls: what DPM-Solver and DEIS
    do for one block (Lu et al. 2022; Zhang & Chen 2023), for the two of CLD. Psi and C_j come from the
    equation they solve, in float64.

    max_order  1 to 3, the highest order of a step's formula; the first steps have that of the calls so far
    """

    name: ClassVar[str] = "cld_exp"
    source: ClassVar[str] = "the ODE of Dockhorn et al. 2022; extends Zhang & Chen 2023 (DEIS)"
    max_order: int = 3

    def __post_init__(self) -> None:
        if type(self.max_order) is not int or not 1 <= self.max_order <= 3:
            raise ValueError(f"max_order={self.max_order!r}: cld_exp has orders 1, 2 and 3")

    @property
    def order(self) -> int:
        return min(self.max_order, 2)  # the first step is Euler's

    @property
    def asymptotic(self) -> int:
        return self.max_order

    def rows(self, system: System, points: Points) -> Iterator[Update | Row]:
        ring = Ring(self.max_order - 1, first=2)
        made = transitions(system.process, points, self.max_order)
        for (s, t), (psi, c) in zip(steps(points), made, strict=True):
            rest = self.rest(system, s)
            kept = [rest, *(past for _, past in ring.past)]
            new = {}
            for k in (0, 1):
                new[k] = float(psi[k, 0]) * x + float(psi[k, 1]) * slot(1)
                for weight, term in zip(c[k], kept, strict=True):
                    new[k] += float(weight) * term
            if self.max_order > 1:
                new[ring.store(s)] = rest
            yield Update(s, new, t, (0, 1), raw=OUTPUT)

    @staticmethod
    def rest(system: System, at: Point) -> Linear:
        """o, the output of a network that predicts a mixed score."""
        _, rest = system.rate(at, slot(1))
        return -float(system.process.covariance(at.t).cholesky[2]) * rest


def transitions(process: CLD, points: Points, order: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(Psi [2, 2], C [2, n]) of every step, n being the calls it knows, the newest first.

    Both are columns of W with dW / dtau = F W + G, which Runge and Kutta's method solves in log t, since
    the rates go as 1 / t near data. Steps with as many calls are solved together.
    """
    times = np.array([at.t for at in points])
    made = []
    for n in range(1, min(order, len(points) - 1) + 1):
        first, last = n - 1, n if n < order else len(points) - 1
        known = np.stack([times[first - j : last - j] for j in range(n)])
        w = solved(process, times[first:last], times[first + 1 : last + 1], known)
        made += [(each[:, :2], each[:, 2:]) for each in w]
    return made


def solved(process: CLD, s: np.ndarray, t: np.ndarray, known: np.ndarray) -> np.ndarray:
    """W [R, 2, 2 + n] of the steps s to t [R], known [n, R] being the times of the calls."""
    log_t = np.linspace(np.log(s), np.log(t), 2 * SUBSTEPS + 1)
    h = ((log_t[0] - log_t[-1]) / SUBSTEPS)[:, None, None]
    drift, force = rates(process, np.exp(log_t), known)
    w = np.broadcast_to(np.eye(2, 2 + len(known)), force.shape[1:])
    for i in range(0, 2 * SUBSTEPS, 2):
        a = drift[i] @ w + force[i]
        b = drift[i + 1] @ (w + 0.5 * h * a) + force[i + 1]
        c = drift[i + 1] @ (w + 0.5 * h * b) + force[i + 1]
        d = drift[i + 2] @ (w + h * c) + force[i + 2]
        w = w + h / 6.0 * (a + 2.0 * b + 2.0 * c + d)
    return w


def rates(process: CLD, t: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """F [T, R, 2, 2] and G [T, R, 2, 2 + n] at the times t [T, R], in units of -log t."""
    covariance, beta = process.covariance(t), process.beta(t) * t
    drift = np.zeros((*t.shape, 2, 2))
    drift[..., 0, 1] = -beta / process.mass
    drift[..., 1, 0] = beta
    drift[..., 1, 1] = beta * process.friction * (1.0 / process.mass - 1.0 / covariance.vv)
    force = np.zeros((*t.shape, 2, 2 + len(known)))
    lam, nodes = process.lam(t), process.lam(known)
    for j, here in enumerate(nodes):
        others = np.delete(nodes, j, axis=0)[:, None]
        lagrange = ((lam - others) / (here - others)).prod(axis=0)
        force[..., 1, 2 + j] = -process.friction * beta / covariance.cholesky[2] * lagrange
    return drift, force
