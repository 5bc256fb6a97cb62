"""What is sent to a server: nothing here talks."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..sampler.spec import Spec

JSON, TENSORS = "application/json", "application/vnd.safetensors"  # PNGs have not the floats
EVENTS = f"text/event-stream, {TENSORS}"  # tensors within events
SEEDS = 1 << 53  # of those drawn here: JavaScript reads them exactly

# The keys of a request's body; all others are those of a Spec.
REQUEST = (
    "model", "n", "seed", "seeds", "condition", "negative", "guidance", "compose", "adapter", "priority",
    "deadline", "preview",
)  # fmt: skip
ARRAYS = ("x", "mask", "known", "measurement", "noise", "condition", "negative")


@dataclass(frozen=True)
class Ask:
    """A message to the server.

    accept  the type of the answer
    again   whether it may come twice: it changes nothing, or makes the same samples
    """

    method: str
    path: str
    body: Mapping[str, Any] | None = None
    accept: str = JSON
    again: bool = True


def body(spec: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request for samples. Raises ValueError where a name is unknown.

    spec   a Spec, the name of a solver, a mapping of a Spec's keys, or None for the model's own
    given  keys of a request and of a Spec; None stands for what is not given

    The seed that nobody gave is drawn here, so that a request that is sent again makes the same samples.
    """
    checks.names("a request", given, [*Spec.model_fields, *REQUEST, *ARRAYS])
    named = {name: value for name, value in given.items() if value is not None}
    arrays = {name: named.pop(name) for name in ARRAYS if _is_array(name, named.get(name))}
    own = {name: _plain(named.pop(name)) for name in REQUEST if name in named}
    if "seed" not in own and "seeds" not in own:
        own["seed"] = secrets.randbelow(SEEDS)
    if arrays:
        own["tensors"] = _tensors(arrays)
    asked = _spec(spec) | _plain(named)
    return own | ({"spec": asked} if asked else {})


def _spec(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, Spec):
        return given.model_dump(mode="json", exclude_unset=True)
    if isinstance(given, str):
        return {"solver": given}
    if isinstance(given, Mapping):
        made: dict[str, Any] = _plain(dict(given))
        return made
    raise ValueError(
        f"spec={checks.said(given)}: give a Spec, the name of a solver, or a mapping of a Spec's keys"
    )


def _is_array(name: str, given: Any) -> bool:
    """Whether a value goes as a tensor: classes, prompts and the name of a noise do not."""
    if given is None or isinstance(given, str):
        return False
    if name not in ("condition", "negative"):
        return True
    return np.ndim(given) > 1 or np.asarray(given).dtype.kind == "f"


def _tensors(arrays: Mapping[str, Any]) -> str:
    """float32 arrays as a safetensors file in base64."""
    from safetensors.numpy import save

    made = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    return base64.b64encode(save(made)).decode()


def _plain(value: Any) -> Any:
    """A value of numpy or torch, and collections of them, as JSON has it."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, (list, tuple, range)) else value
