"""Flow-driven posterior sampling (Kim et al., ICCV 2025).

A flow's step goes to (1 - t) x0 + t eps, of two estimates. The measurement moves the first (algorithm 1):
if x0(y) is what some steps down ||y - A z||^2 make of z = x0, and s = sigma / (alpha + sigma), a flow's t,

    x0  <-  (1 - s) x0 + s x0(y);

eps stays what the network says. So a step to alpha_t, sigma_t is followed by

    x_t  <-  x_t + alpha_t s (x0(y) - x0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan import Plan
from ..solvers.base import Points, Solver
from .conjugate import conjugate_gradients, weighted
from .inverse import ITERATIONS, Estimate, InverseProblem, after_steps


@dataclass(frozen=True)
class FlowDPS(InverseProblem):
    """x_t + alpha_t s (x0(y) - x0), after each step of a solver, s = sigma / (alpha + sigma).

    operator    as in InverseProblem
    iterations  of conjugate gradients towards the measurement, 1 or more

    The paper goes down by gradient steps of a tuned length, in the space of a decoder, and mixes fresh noise
    into eps; conjugate gradients find their own lengths, and noise is the solver's.
    """

    name: ClassVar[str] = "flowdps"
    source: ClassVar[str] = "Kim et al. 2025 (FlowDPS), algorithm 1"
    differentiates: ClassVar[bool] = False
    iterations: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("iterations", self.iterations, 1, ITERATIONS)

    def estimate(self, at: Estimate) -> tuple[Tensor, ...]:
        a = at.operator

        def normal(z: Tensor) -> Tensor:
            return a.adjoint(a.apply(z))

        moved = conjugate_gradients(normal, a.adjoint(at.residual), self.iterations)
        return at.x0, weighted(at.sigma / (at.alpha + at.sigma), moved)

    def plan(
        self, solver: Solver, network: Parameterisation, points: Points, start: str,
        clip: tuple[float, float] | None,
    ) -> Plan:  # fmt: skip
        return after_steps(
            super().plan(solver, network, points, start, clip), lambda state: state.alpha
        )
