"""Adams-Bashforth multistep solvers on eps: LMS, DEIS, iPNDM and PLMS.

All are x_t = alpha_t / alpha_s x + sum_j C_j eps_j over the newest predictions; they differ in C.
Past predictions of eps lie in slots 1 to 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, slot, x
from ..processes import GaussianProcess, Point
from .base import STARTS, Points, Ring, Solver, Update, eps_of, finite_start, steps, transfer

NODES, WEIGHTS = np.polynomial.legendre.leggauss(64)


def lagrange(nodes: Sequence[float], j: int, at: np.ndarray) -> np.ndarray:
    """The polynomial that is 1 at nodes[j] and 0 at the others."""
    value = np.ones_like(at)
    for k, node in enumerate(nodes):
        if k != j:
            value = value * (at - node) / (nodes[j] - node)
    return value


def integrals(
    nodes: Sequence[float], start: float, end: float, weight: Callable, node_of: Callable
) -> list[float]:
    """int_start^end L_j(node_of(u)) weight(u) du for every j, by Gauss-Legendre quadrature."""
    half = 0.5 * (end - start)
    u = start + half * (NODES + 1.0)
    density = WEIGHTS * half * weight(u)
    return [float(np.sum(density * lagrange(nodes, j, node_of(u)))) for j in range(len(nodes))]


def rho_weights(process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
    """alpha_t int L_j(g) dg from g_s to g_t: exact Adams-Bashforth in g = sigma / alpha."""
    ratios = [p.ratio for p in nodes]
    whole = integrals(ratios, ratios[0], t.ratio, np.ones_like, lambda g: g)
    return [t.alpha * c for c in whole]


def t_weights(process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
    """alpha_t int L_j(time) dg, interpolating in time (Zhang & Chen 2023, eq. 15), dg = -g dlam."""
    # The t of a point may be but the nearest to its level.
    times = [float(process.t_of_lam(p.lam)) for p in nodes]
    whole = integrals(times, nodes[0].lam, t.lam, lambda lam: -np.exp(-lam), process.t_of_lam)
    return [t.alpha * c for c in whole]


BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def ddim_weights(process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
    """One DDIM transfer of the constant-step Adams-Bashforth combination (Liu et al. 2022, eq. 12)."""
    whole = t.sigma - t.alpha / nodes[0].alpha * nodes[0].sigma
    return [whole * w for w in BASHFORTH[len(nodes) - 1]]


def combine(s: Point, t: Point, weights: list[float], past: list[tuple[Point, Linear]]) -> Linear:
    """alpha_t / alpha_s x + C_0 eps + sum_j C_j eps_j."""
    total = t.alpha / s.alpha * x + weights[0] * eps_of(s)
    for c, (_, e) in zip(weights[1:], past, strict=False):
        total = total + c * e
    return total


@dataclass(frozen=True)
class Adams(Solver):
    """What the multistep solvers share; subclasses say how the weights are made.

    max_order  the highest order of a step's formula; the first steps have that of the calls so far
    start      the first step: "euler", or "heun", of second order by a call more
    """

    highest: ClassVar[int] = 4
    max_order: int = 4
    start: str = "euler"

    def __post_init__(self) -> None:
        if not 1 <= self.max_order <= self.highest:
            raise ValueError(
                f"max_order={self.max_order}: {self.name} has orders 1 to {self.highest}"
            )
        checks.one_of("start", self.start, STARTS)

    @property
    def order(self) -> int:
        # One step of order p is no more than an order p + 1 of the run.
        return min(self.max_order, 3 if self.start == "heun" else 2)

    @property
    def asymptotic(self) -> int:
        return self.max_order

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return finite_start(parameterisation.process, points)

    def weights(self, process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
        """C_j of the step from nodes[0] to t, nodes newest first."""
        raise NotImplementedError

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(self.max_order - 1)
        for i, (s, t) in enumerate(steps(points)):
            nodes = [s, *(at for at, _ in ring.past)]
            new = {0: combine(s, t, self.weights(process, nodes, t), ring.past)}
            if self.max_order > 1 and i + 2 < len(points):
                new[ring.store(s)] = eps_of(s)
            if i == 0 and self.start == "heun" and t.sigma > 0.0:  # no call at clean data
                yield from heun_in_g(s, t, new)
            else:
                yield Update(s, new, t)


def heun_in_g(s: Point, t: Point, first: dict[int, Linear]) -> Iterator[Update]:
    """Heun's first step, with a second call at the end of Euler's; slot 1 has eps for the steps to come."""
    # Slot 2 holds the end of the Euler step until the second call has been made there.
    yield Update(s, {1: first.get(1, eps_of(s)), 2: transfer(s, t, x, denoised)}, None)
    half = 0.5 * (t.sigma - t.alpha / s.alpha * s.sigma)
    end = t.alpha / s.alpha * x + half * slot(1) + half * eps_of(t, slot(2))
    yield Update(t, {0: end}, t, read=(2,))


@dataclass(frozen=True)
class LMS(Adams):
    """Linear multistep in g, with exact variable-step coefficients (k-diffusion; DEIS rhoAB).

    max_order  1 to 4, the highest order of a step's formula; the first steps have that of the calls so far
    start      "euler" as published; "heun", a call more, makes the first step second order and the run third
    """

    name: ClassVar[str] = "lms"
    source: ClassVar[str] = "k-diffusion"

    def weights(self, process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
        return rho_weights(process, nodes, t)


@dataclass(frozen=True)
class DEIS(Adams):
    """Exponential integrator with eps interpolated over max_order times (Zhang & Chen 2023).

    max_order  1 to 4, the paper's r + 1; the first steps have the order of the calls so far
    start      "euler" as published; "heun", a call more, makes the first step second order and the run third
    variant    "tab" interpolates in time, "rhoab" in g. The step to clean data is first order.
    """

    name: ClassVar[str] = "deis"
    source: ClassVar[str] = "Zhang & Chen 2023, eq. 14"
    variant: str = "tab"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant not in ("tab", "rhoab"):
            raise ValueError(f"variant={self.variant!r}: DEIS takes 'tab' or 'rhoab'")

    def weights(self, process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
        if t.sigma == 0.0:
            return ddim_weights(process, nodes[:1], t)
        return (t_weights if self.variant == "tab" else rho_weights)(process, nodes, t)


@dataclass(frozen=True)
class IPNDM(Adams):
    """Improved PNDM: Adams-Bashforth with constant-step weights in a DDIM transfer (Zhang & Chen 2023).

    Those weights are of second order where steps in g differ, of order `max_order` where they are equal.

    max_order  1 to 4, the highest order of a step's formula; the first steps have that of the calls so far
    start      "euler", or "heun", which is 'plms': with variable=True order 3
    variable   the weights of the steps' own lengths, 'lms''s, as of the name ipndm_v
    """

    name: ClassVar[str] = "ipndm"
    source: ClassVar[str] = "Zhang & Chen 2023, section 4; Liu et al. 2022"
    differs: ClassVar[str] = (
        "variable=True has the exact weights; ipndm_v's of three and four calls are exact for equal steps "
        "only, and its step to clean data is first order"
    )
    variable: bool = False

    @property
    def order(self) -> int:
        return super().order if self.variable else min(self.max_order, 2)

    def weights(self, process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
        return (rho_weights if self.variable else ddim_weights)(process, nodes, t)


@dataclass(frozen=True)
class PLMS(IPNDM):
    """Pseudo linear multistep: iPNDM's weights after one pseudo improved-Euler step (Liu et al. 2022).

    The first step calls the network twice, as latent diffusion does. Options are ipndm's; with variable=True
    the order is 3.
    """

    name: ClassVar[str] = "plms"
    source: ClassVar[str] = "Liu et al. 2022 (PNDM), algorithm 2; latent diffusion"
    differs: ClassVar[str] = ""
    start: str = "heun"
