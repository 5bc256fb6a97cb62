"""What an engine is given, as it reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from .. import checks
from ..sampler.request import Request
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


def owned(request: Request) -> Request:
    """The request on tensors of its own: the caller may change those that were given."""

    def own(given: Any) -> Any:
        if isinstance(given, Mapping):
            return {name: own(tensor) for name, tensor in given.items()}
        if not isinstance(given, Tensor):
            return given
        if given.ndim and not given.stride(0):  # one for all
            return given[:1].clone().expand(given.shape)
        return given.clone()

    names = ("condition", "negative", "x", "mask", "known", "measurement", "noise")
    given = {name: own(getattr(request, name)) for name in names}
    return replace(request, concepts=tuple(map(own, request.concepts)), **given)
