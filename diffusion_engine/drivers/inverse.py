"""Samples of p(x0 | y) for a measurement y = A x0 + sigma_y n, by another estimate of x0.

Along the process

    E[x0 | x, y] = E[x0 | x] + sigma^2 / alpha grad log p(y | x),

so that a solver which is given the left side samples the posterior. The methods differ in what they take for
grad log p(y | x), of which E[x0 | x], its derivative by x and A are known. Each has a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import checks
from ..genie import natural
from ..networks.network import Condition, ScoreNetwork, gathered
from ..networks.parameterisation import Parameterisation
from ..networks.placement import place
from ..plan import Plan, Row
from ..plan.linear import raw, x
from ..processes import GaussianProcess, Point
from ..processes.levels import per_sample
from .base import Driver
from .conjugate import weighted
from .operators import GIVE, Operator, operator

ITERATIONS = "conjugate gradients take 1 step or more"


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a method corrects, of a batch of states.

    x0        [N, C, *pixel], the network's estimate
    residual  y - A x0, [N, *measured]
    alpha, sigma  [N] float64, of the states
    pull      u [N, C, *pixel] -> (d x0 / d x)^T u; None where the method says it needs none
    operator  A
    """

    x0: Tensor
    residual: Tensor
    alpha: Tensor
    sigma: Tensor
    pull: Callable[[Tensor], Tensor]
    operator: Operator

    @property
    def gain(self) -> Tensor:
        """sigma^2 / alpha, [N]: of a score in x0; 0 at pure noise, where alpha is 0 and x says nothing."""
        return torch.where(self.alpha > 0.0, self.sigma**2 / self.alpha, 0.0)

    def moved(self, w: Tensor) -> Tensor:
        """x0 + sigma^2 / alpha (d x0 / d x)^T A^T w."""
        return self.x0 + weighted(self.gain, self.pull(self.operator.adjoint(w)))


@dataclass(frozen=True)
class InverseProblem(Driver):
    """A method for inverse problems. A subclass writes `estimate`.

    operator  an Operator, a name of operators.OPERATORS, or {"name": ..., its options}
    """

    operator: Operator | str | Mapping[str, Any] | None = None
    differentiates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.operator is None:
            raise ValueError(f"driver {self.name!r} needs operator=: {GIVE}")
        _ = self.made  # an unknown one is refused here, not at the first sample

    @cached_property
    def made(self) -> Operator:
        """The operator, where the option may be its name."""
        return operator(self.operator)  # type: ignore[arg-type]

    def estimate(self, at: Estimate) -> Tensor | tuple[Tensor, ...]:
        """The estimate of x0 given y, and what else a plan is to read as further channel blocks."""
        raise NotImplementedError

    def network(self, network: ScoreNetwork) -> ScoreNetwork:
        """The network whose estimate of x0 follows a measurement, which it is given as `measurement`.

        Raises ValueError where the network has no such estimate, or the operator's adjoint is wrong.
        """
        refuse(self, about := network.parameterisation)
        natural.check(network)
        measured = self.made.measured(network.shape, place(network.module, None, None)[1])
        module = Posterior(network, self)
        module.train(getattr(network.module, "training", False))
        return network.with_module(
            module, prediction="x0", label=Time(about.process), label_dtype=torch.float64, scale="one",
            variance=None, derivative=None, inference=False, measured=measured,
        )  # fmt: skip


@dataclass(frozen=True)
class Noisy(InverseProblem):
    """A method that is told the measurement's noise, and solves a linear system.

    sigma_y     standard deviation of the noise, 0 or more; the papers' benchmarks have 0.05
    iterations  of conjugate gradients, 1 or more
    """

    sigma_y: float = 0.05
    iterations: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if checks.number("sigma_y", self.sigma_y) < 0.0:
            raise ValueError(f"sigma_y={self.sigma_y:g}: a standard deviation is 0 or more")
        checks.whole("iterations", self.iterations, 1, ITERATIONS)


def refuse(made: InverseProblem, about: Parameterisation) -> None:
    """Raises ValueError where a network has no estimate of x0 to correct."""
    why = None
    if about.process.parts > 1:
        why = "it follows x alone, and the network's state is [x, v]; give a network of x"
    elif about.latent:
        why = "it is a generator that reads a latent, and none of its estimates is E[x0 | x]"
    elif about.end_label is not None:
        why = "it is told where its step ends, and none of its estimates is E[x0 | x]"
    elif about.gradient is not None:
        why = "it has a classifier, whose gradient would be left out; give the network within"
    if why:
        raise ValueError(f"driver {made.name!r} cannot run {about.name!r}: {why}")


@dataclass(frozen=True)
class Time:
    """The label of a network that is told t, and takes alpha and sigma from it."""

    process: GaussianProcess

    def __call__(self, at: Any) -> Any:
        """t. Raises ValueError of a level that has the nearest one's t alone."""
        if isinstance(at, Point) and at.sigma > 0.0:
            own = self.process.at(at.t)
            pairs = ((at.alpha, own.alpha), (at.sigma, own.sigma))
            if not all(math.isclose(a, b, rel_tol=1e-6) for a, b in pairs):
                raise ValueError(
                    f"sigma / alpha = {at.ratio:g} is not that of {type(self.process).__name__} at "
                    f"t={at.t:g}, and an inverse problem goes by t; give levels of the process"
                )
        return at.t


class Posterior(nn.Module):
    """The module that a driver of inverse problems makes of a network."""

    def __init__(self, network: ScoreNetwork, driver: InverseProblem) -> None:
        super().__init__()
        if isinstance(network.module, nn.Module):
            self.module = network.module
        self.network, self.driver = network, driver

    def forward(
        self, x: Tensor, label: Tensor, condition: Condition | None = None, *,
        measurement: Tensor | None = None, **named: Tensor,
    ) -> Tensor | tuple[Tensor, ...]:  # fmt: skip
        """The estimate of x0 of states x at times `label`, [N, C, *pixel] like x.

        Raises ValueError where the measurement is missing or has another shape.
        """
        if torch.compiler.is_exporting():
            raise ValueError(
                f"driver {self.driver.name!r} corrects the network's estimate in Python, which no recording "
                "holds: run it with executor='eager'"
            )
        work = torch.promote_types(x.dtype, torch.float32)
        state, given = x.detach().to(work), gathered(condition, named)
        if not self.driver.differentiates:
            x0 = self._x0(state, label, given, x.dtype)
            made = self._corrected(x0, label, measurement, _no_pull)
        else:
            with torch.enable_grad():
                leaf = state.requires_grad_()
                x0 = self._x0(leaf, label, given, x.dtype)

            def pull(u: Tensor) -> Tensor:
                return torch.autograd.grad(x0, leaf, u.to(x0.dtype), retain_graph=True)[0]

            made = self._corrected(x0.detach(), label, measurement, pull)
        parts = made if isinstance(made, tuple) else (made,)
        outs = tuple(torch.empty_like(x).copy_(part) for part in parts)
        return outs if len(outs) > 1 else outs[0]

    def _x0(self, x: Tensor, t: Tensor, condition: Condition | None, dtype: torch.dtype) -> Tensor:
        """The network's own estimate."""
        at, scaled, label = natural.inputs(self.network, x, t)
        out = self.network(scaled.to(dtype), label, condition)[0][:, : x.shape[1]]
        if x.requires_grad and not out.requires_grad:
            raise ValueError(
                f"driver {self.driver.name!r} differentiates the network, whose output has no derivative by "
                "its input: it may not detach, nor run under no_grad; or use 'diffpir' or 'flowdps', which "
                "need none"
            )
        (p,), q = self.network.parameterisation.weights(at)
        return per_sample(p, x) * x + per_sample(q, x) * out.to(x.dtype)

    def _corrected(
        self, x0: Tensor, t: Tensor, y: Tensor | None, pull: Callable[[Tensor], Tensor]
    ) -> Tensor | tuple[Tensor, ...]:
        at, by = natural.Levels.of(self.network.process, t.double()), self.driver.made
        if y is None:
            raise ValueError(
                f"driver {self.driver.name!r} follows a measurement; give measurement="
            )
        residual = by.residual(y.to(x0.dtype), x0)
        if residual.shape != y.shape:
            raise ValueError(
                f"the measurement has shape {list(y.shape[1:])} a sample, and {by.name!r} makes "
                f"{list(by.measured(x0.shape[1:], x0.device))}"
            )
        return self.driver.estimate(Estimate(x0, residual, at.alpha, at.sigma, pull, by))


def _no_pull(u: Tensor) -> Tensor:
    raise ValueError("this method says that it does not differentiate the network")


def after_steps(plan: Plan, weight: Callable[[Point], float]) -> Plan:
    """The plan that adds weight(state) times the network's channel block 1 to every state it arrives at.

    Raises ValueError where the solver reads the network's outputs beside its estimate of x0.
    """

    def added(row: Row) -> Row:
        if row.call is None or row.state is None:
            return row
        if any(row.e):
            raise ValueError(
                f"the plan of {plan.name!r} reads the network's outputs beside the estimate of x0, and this "
                "driver's step comes as another; use a solver of that estimate, such as 'ddpm' or 'dpmpp_2m'"
            )
        first = [
            (q, b)
            for q, h, b in zip(row.q, row.channel_blocks, row.branches, strict=True)
            if h == 0
        ]
        return replace(
            row,
            new=row.new | {0: row.new.get(0, x) + weight(row.state) * raw},
            q=(*row.q, *(0.0 for _ in first)),
            e=(*(0.0 for _ in row.q), *(q for q, _ in first)),
            channel_blocks=(*row.channel_blocks, *(1 for _ in first)),
            branches=(*row.branches, *(branch for _, branch in first)),
        )

    return plan.replace_rows([added(row) for row in plan.rows])
