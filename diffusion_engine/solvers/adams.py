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


def lam_weights(process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
    """alpha_t int L_j(lam) dg, interpolating in log g (Zhang & Chen 2023, log rho), dg = -g dlam."""
    lams = [p.lam for p in nodes]
    whole = integrals(lams, lams[0], t.lam, lambda lam: -np.exp(-lam), lambda lam: lam)
    return [t.alpha * c for c in whole]


@dataclass(frozen=True)
class Adams(Solver):
    """What the multistep solvers share; subclasses say how the weights are made.

    max_order  the highest order of a step's formula; the first steps have that of the calls so far
    start      the first step: "euler", or "heun", of second order by a call more
    lower_order_final  the last steps have orders ..., 2 and 1
    """

    highest: ClassVar[int] = 4
    starts: ClassVar[tuple[str, ...]] = STARTS
    max_order: int = 4
    start: str = "euler"
    lower_order_final: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.max_order <= self.highest:
            raise ValueError(
                f"max_order={self.max_order}: {self.name} has orders 1 to {self.highest}"
            )
        checks.one_of("start", self.start, self.starts)

    @property
    def order(self) -> int:
        # One step of order p is no more than an order p + 1 of the run.
        ends = 3 if self.start == "heun" and not self.lower_order_final else 2
        return min(self.max_order, ends)

    @property
    def asymptotic(self) -> int:
        return self.max_order

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return finite_start(parameterisation.process, points)

    def weights(self, process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
        """C_j of the step from nodes[0] to t, nodes newest first."""
        raise NotImplementedError

    def predicted(self, at: Point, state: Linear = x) -> Linear:
        """What is kept of a call, and extrapolated."""
        return eps_of(at, state)

    def moved(self, s: Point, t: Point, change: Linear) -> Linear:
        """The state at t, of the sum of C_j times what was kept."""
        return t.alpha / s.alpha * x + change

    def from_noise(self, s: Point, t: Point) -> Linear:
        """The state at t of a step from pure noise."""
        return transfer(s, t, x, denoised)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        ring = Ring(self.max_order - 1, infinite=True)
        for i, (s, t) in enumerate(steps(points)):
            left = len(points) - 1 - i
            past = ring.past[: left - 1] if self.lower_order_final else ring.past
            new = {0: self.step(process, s, t, past)}
            if self.max_order > 1 and left > 1:
                new[ring.store(s)] = self.predicted(s)
            if i == 0 and self.start == "heun" and 0.0 not in (s.alpha, t.sigma):
                yield from self.heun(s, t, new)
            else:
                yield Update(s, new, t)

    def step(
        self, process: GaussianProcess, s: Point, t: Point, past: list[tuple[Point, Linear]]
    ) -> Linear:
        if s.alpha == 0.0:
            return self.from_noise(s, t)
        first, *weights = self.weights(process, [s, *(at for at, _ in past)], t)
        change = first * self.predicted(s)
        for c, (_, e) in zip(weights, past, strict=True):
            change = change + c * e
        return self.moved(s, t, change)

    def heun(self, s: Point, t: Point, first: dict[int, Linear]) -> Iterator[Update]:
        """Heun's first step in g, its second call at the end of Euler's; slot 1 keeps the first call."""
        # Slot 2 holds the end of the Euler step until the second call has been made there.
        kept = first.get(1, self.predicted(s))
        yield Update(s, {1: kept, 2: transfer(s, t, x, denoised)}, None)
        half = 0.5 * (t.sigma - t.alpha / s.alpha * s.sigma)
        end = self.moved(s, t, half * slot(1) + half * self.predicted(t, slot(2)))
        yield Update(t, {0: end}, t, read=(2,))


@dataclass(frozen=True)
class LMS(Adams):
    """Linear multistep in g, with exact variable-step coefficients (k-diffusion; DEIS rhoAB).

    max_order  1 to 4, the highest order of a step's formula; the first steps have that of the calls so far
    start      "euler" as published; "heun", a call more, makes the first step second order and the run third
    lower_order_final  the last steps have orders ..., 2 and 1
    """

    name: ClassVar[str] = "lms"
    source: ClassVar[str] = "k-diffusion"

    def weights(self, process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
        return rho_weights(process, nodes, t)


VARIANTS = {"tab": t_weights, "rhoab": rho_weights, "logrho": lam_weights}


@dataclass(frozen=True)
class DEIS(Adams):
    """Exponential integrator with eps interpolated over max_order times (Zhang & Chen 2023).

    max_order  1 to 4, the paper's r + 1; the first steps have the order of the calls so far
    start      "euler" as published; "heun", a call more, makes the first step second order and the run third
    lower_order_final  the last steps have orders ..., 2 and 1
    variant    "tab" interpolates in time, "rhoab" in g, "logrho" in log g. The step to clean data is
               first order
    """

    name: ClassVar[str] = "deis"
    source: ClassVar[str] = "Zhang & Chen 2023, eq. 14"
    variant: str = "tab"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("variant", self.variant, tuple(VARIANTS))

    def weights(self, process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
        if t.sigma == 0.0:
            return ddim_weights(process, nodes[:1], t) + [0.0] * (len(nodes) - 1)
        return VARIANTS[self.variant](process, nodes, t)


@dataclass(frozen=True)
class IPNDM(Adams):
    """Improved PNDM: Adams-Bashforth with constant-step weights in a DDIM transfer (Zhang & Chen 2023).

    Those weights are of second order where steps in g differ, of order `max_order` where they are equal.

    max_order  1 to 4, the highest order of a step's formula; the first steps have that of the calls so far
    start      "euler", or "heun", which is 'plms': with variable=True order 3. A first step from pure noise
               is first order, and "blind" takes x0 for 0 in it
    lower_order_final  the last steps have orders ..., 2 and 1
    variable   the weights of the steps' own lengths, 'lms''s, as of the name ipndm_v; not from pure noise
    """

    name: ClassVar[str] = "ipndm"
    source: ClassVar[str] = "Zhang & Chen 2023, section 4; Liu et al. 2022"
    differs: ClassVar[str] = (
        "variable=True has the exact weights; ipndm_v's of three and four calls are exact for equal steps "
        "only, and its step to clean data is first order; a step from pure noise takes the network's x0, "
        "where diffusers' takes 0 (start='blind')"
    )
    starts: ClassVar[tuple[str, ...]] = (*STARTS, "blind")
    variable: bool = False

    @property
    def order(self) -> int:
        return super().order if self.variable else min(self.max_order, 2)

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.start != "blind"

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        rises = points[-1].alpha < points[0].alpha  # upwards pure noise has no eps to step to
        return super().objection(parameterisation, points) if self.variable or rises else None

    def weights(self, process: GaussianProcess, nodes: Points, t: Point) -> list[float]:
        return (rho_weights if self.variable else ddim_weights)(process, nodes, t)

    def from_noise(self, s: Point, t: Point) -> Linear:
        return t.sigma / s.sigma * x if self.start == "blind" else super().from_noise(s, t)
