"""What an engine is given, as it reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import checks
from ..sampler.spec import Spec

SPEC = "give a Spec, the name of a solver, or a mapping of a Spec's keys"


def mapping(said: str, given: Any) -> Mapping[str, Any]:
    """A mapping of adapters' names. Raises ValueError where it is none."""
    if not isinstance(given, Mapping):
        raise ValueError(
            f"{said}={checks.said(given)}: give a mapping of adapters' names to deltas"
        )
    return given


def spec_of(given: Any) -> Spec:
    """A Spec of itself, of its keys or of a solver's name. Raises ValueError where it is none."""
    if isinstance(given, Spec):
        return given
    if isinstance(given, str):
        given = {"solver": given}
    if not isinstance(given, Mapping):
        raise ValueError(f"spec={checks.said(given)}: {SPEC}")
    return Spec.model_validate(given)
