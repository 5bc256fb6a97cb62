"""Solvers that users write, as the engine takes them."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import getattr_static
from typing import Any, Protocol

from .. import checks
from ..processes import GaussianProcess
from .base import Points, Solver
from .update import Update


class Rule(Protocol):
    """All that a solver has to have. What else it may say is at `Solver`."""

    def updates(self, process: GaussianProcess, points: Points) -> Iterable[Update]:
        """The rows after the first, in order."""


SAID = frozenset(n for n in vars(Solver) if not n.startswith("_")) - {"plan"}


class Own(Solver):
    """A user's object as a Solver: what it says of itself, and for the rest what Solver says.

    given  the object
    """

    given: Rule

    def __init__(self, given: Rule) -> None:
        vars(self).update(given=given, name=type(given).__name__)

    def __repr__(self) -> str:
        return repr(self.given)

    def __getattribute__(self, name: str) -> Any:
        # Looked up without being run: an AttributeError within a property is the user's to see.
        if name in SAID and getattr_static(self.given, name, self) is not self:
            return getattr(self.given, name)
        return super().__getattribute__(name)


def adopted(given: Any) -> Solver:
    """The object as a Solver. Raises ValueError in a sentence where it is none."""
    updates = callable(getattr(given, "updates", None))
    if isinstance(given, type) and updates:
        raise ValueError(f"solver={given.__name__} is a class; give an object, {given.__name__}()")
    if not updates:
        raise ValueError(
            f"solver={checks.said(given)} is neither a name nor an object with updates(process, points)"
        )
    made = given if isinstance(given, Solver) else Own(given)
    if not isinstance(made.name, str):
        raise ValueError(f"a solver's name is a text, got {checks.said(made.name)}")
    return made
