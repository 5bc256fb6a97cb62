"""`Guider`: what every guider shares, and `Guided`, what its rule sees and says."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import ClassVar, Protocol

from torch import Tensor

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan import Plan, Row
from ..plan.guidance import branched, inside

Interval = tuple[float, float]


class Guided(Protocol):
    """The seats of a batch between the network's call and the step, as a rule sees them: [B] float64 each.
    What it says counts for the seats whose rows have its guider; nothing is read back.

    scale     s of classifier-free guidance
    elements  of a sample
    """

    scale: Tensor
    elements: int

    def option(self, i: int) -> Tensor:
        """Number i of the guider's."""

    def outputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """sum c, sum u, sum c^2, sum u^2 and sum c u of the network's outputs with the condition and without
        it."""

    def estimates(self, momentum: Tensor, slot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """sum d^2, sum D^2 and sum d D of d = D - D_u + momentum d_before and of D, the estimate of x0 with
        the condition; D_u is that without it. d is kept in a slot for the next call, where that is not
        negative."""

    def quantile(self, q: Tensor) -> Tensor:
        """The q-quantile of the magnitudes of the row's own estimate of x0."""

    def weigh(self, conditional: Tensor, unconditional: Tensor) -> None:
        """The output of the call becomes `conditional` c + `unconditional` u."""

    def steer(self, estimate: Tensor, change: Tensor, slot: Tensor) -> None:
        """The estimate of x0 becomes `estimate` D + `change` d, d from that slot where it is not negative."""

    def bound(self, by: Tensor) -> None:
        """The estimate of x0 is clipped to -by ... by, and divided by that."""


class Guider:
    """Guidance that needs a number of each sample. A subclass is a frozen dataclass whose fields are its
    options; it is a transform of a plan, as classifier-free guidance is, and a rule that gives rows their
    weights between the network's call and the step.

    name    in recipes, on the command line and in errors
    source  the paper, and the equation or algorithm
    scaled  whether it replaces classifier-free guidance, and does nothing at scale 1
    """

    name: ClassVar[str] = "guider"
    source: ClassVar[str] = ""
    scaled: ClassVar[bool] = True

    @classmethod
    def options(cls) -> frozenset[str]:
        """The names of its options."""
        return frozenset(f.name for f in dataclasses.fields(cls) if f.init)  # type: ignore[arg-type]

    def objection(self, network: Parameterisation) -> str | None:
        """Why it cannot guide this network, as a sentence; None where it can."""
        if self.scaled and (network.reads_scale or network.guided):
            return "its scale is the network's own input, or within it, so that there is one output alone"
        return None

    def numbers(self) -> tuple[float, ...]:
        """What its rule reads of a row, beside the scale."""
        return ()

    def plan(self, plan: Plan, scale: float, interval: Interval) -> Plan:
        """The plan with rows that the rule guides inside an interval, in place of classifier_free."""
        if any(row.unconditional for row in plan.rows):
            raise ValueError(
                f"guider {self.name!r} weighs both branches of an output, and CFG++ moves along the one "
                "without a condition alone: leave out cfg_pp or the guider"
            )
        if scale == 1.0:
            return plan
        rows = [
            self.row(branched(row), scale) if inside(row, interval) else row for row in plan.rows
        ]
        return plan.replace_rows(rows)

    def row(self, row: Row, scale: float) -> Row:
        """A row of two branches with what the rule reads."""
        return replace(row, guider=(self.name, (scale, *self.numbers())))

    @staticmethod
    def guide(at: Guided) -> None:
        """The rule."""
        raise NotImplementedError


def share(name: str, given: float, wanted: str) -> float:
    """A number from 0 to 1."""
    if not 0.0 <= (value := checks.number(name, given, wanted)) <= 1.0:
        raise ValueError(f"{name}={value:g}: {wanted}")
    return value
