"""What a Spec and a Recipe name: a solver, a driver, a guider, each with its options."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from ..model import Model


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
