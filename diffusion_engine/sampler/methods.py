"""What a Spec and a Recipe name: a solver, a driver, a guider, each with its options; and which calls are
forecast."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from .. import checks
from ..model import Model
from ..plan import Plan
from ..plan.forecast import ORDER, forecast, spared


class Method(Model):
    """A solver: its name, and what options of it JSON holds."""

    kind: ClassVar[str] = "solver"
    name: str
    options: dict[str, Any]


class Driven(Method):
    """A driver: its name, and what options of it JSON holds."""

    kind: ClassVar[str] = "driver"
    options: dict[str, Any] = Field(default_factory=dict)


class Steered(Driven):
    """A guider: its name, and its options."""

    kind: ClassVar[str] = "guider"


class Forecast(Model):
    """Calls that are not made, their outputs being forecast of those before (plan/forecast.py).

    order  of the polynomial in past outputs
    every  one call in so many is made, behind the first ones
    after  so many calls at the beginning are all made; None are order + 1
    calls  numbers of those that are not made, from 0, in place of every and after
    """

    kind: ClassVar[str] = "forecast"
    order: int = Field(1, ge=0, le=4)
    every: int = Field(2, ge=1)
    after: int | None = Field(None, ge=1)
    calls: tuple[int, ...] | None = Field(None, max_length=4096)

    @field_validator("order", mode="before")
    @classmethod
    def _order(cls, given: Any) -> int:
        return checks.whole("order", given, 0, ORDER)

    def apply(self, plan: Plan) -> Plan:
        """The plan without those calls. Raises ValueError where they cannot be left out."""
        if self.calls is not None:
            return forecast(plan, self.calls, self.order)
        after = self.order + 1 if self.after is None else self.after
        return forecast(plan, spared(plan.nfe, self.every, after), self.order)

    def check(self, driver: Any, guider: Any) -> None:
        """Raises ValueError where what leads or guides a sampler asks for every call."""
        if driver is not None:
            raise ValueError(
                f"driver {driver.name!r} decides by the network's calls, and forecast= leaves some out: "
                "leave one of them out"
            )
        if guider is not None and not guider.scaled:
            raise ValueError(
                f"guider {guider.name!r} bounds the estimate of every call, and forecast= leaves some out: "
                "leave one of them out"
            )
