"""The requests of a load: kinds drawn by weight, at the times of a Poisson process."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field, field_validator

from ... import checks
from ...model import Model
from ...networks.network import ScoreNetwork
from ...sampler.spec import Spec

MIX = (
    'a mix is a JSON list of requests, as [{"weight": 2, "spec": {"solver": "ddim", "steps": 20}}]'
)


class Kind(Model):
    """One kind of request of a mix; `weight` says how often it comes beside the others."""

    kind: ClassVar[str] = "request of a mix"

    spec: Spec
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    n: int = Field(1, ge=1)
    guidance: float | None = None
    condition: int | Literal["all", "none"] = Field(
        "all", validation_alias=AliasChoices("condition", "class")
    )
    priority: float = 0.0
    deadline: float | None = Field(None, gt=0)
    preview: int = Field(1, ge=0)

    @field_validator("spec", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"solver": given} if isinstance(given, str) else given


@dataclass(frozen=True)
class Arrival:
    """A request of a load.

    at        seconds after its beginning
    seeds     of its samples; classes: one each, None where it has none
    """

    at: float
    kind: Kind
    seeds: tuple[int, ...]
    classes: tuple[int, ...] | None

    @property
    def request(self) -> dict[str, Any]:
        """The keywords that `Sampler.sample` and `Engine.submit` share."""
        made: dict[str, Any] = {"seeds": list(self.seeds)}
        if self.classes is not None:
            made["condition"] = list(self.classes)
        if self.kind.guidance is not None:
            made["guidance"] = self.kind.guidance
        return made


# Most ask for few steps, and one in sixteen for fifty.
DEFAULT = tuple(
    Kind.model_validate({"weight": weight, "spec": {"solver": solver, "steps": steps}})
    for weight, solver, steps in (
        (5, "unipc", 5), (4, "dpmpp_2m", 8), (3, "dpmpp_2m", 10), (1, "heun", 8), (1, "ddim", 20),
        (1, "dpmpp_2m_sde", 25), (1, "euler_ancestral", 50),
    )
)  # fmt: skip


def mix_of(text: str) -> tuple[Kind, ...]:
    """The mix of a JSON text. Raises ValueError where it is none, with the place of what is wrong."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the mix is no JSON ({error}); {MIX}") from None
    if not isinstance(given, list) or not given:
        raise ValueError(f"the mix is {checks.said(given)}; {MIX}")
    made = []
    for i, entry in enumerate(given):
        try:
            made.append(Kind.model_validate(entry))
        except ValueError as error:
            raise ValueError(f"request {i} of the mix: {error}") from None
    return tuple(made)


def arrivals(
    mix: Sequence[Kind], network: ScoreNetwork, count: int, rate: float, seed: int = 0
) -> list[Arrival]:
    """`count` requests of a mix, `rate` a second on average; the same for the same seed.

    Their seeds are 0, 1, 2, ... in the order of arrival.
    """
    numbers = random.Random(seed)
    chosen = numbers.choices(mix, [kind.weight for kind in mix], k=count)
    made: list[Arrival] = []
    at, first = 0.0, 0
    for kind in chosen:
        at += numbers.expovariate(rate)
        seeds = tuple(range(first, first + kind.n))
        made.append(Arrival(at, kind, seeds, _classes(kind, network, numbers)))
        first += kind.n
    return made


def at_once(load: Sequence[Arrival]) -> list[Arrival]:
    """The same requests, all at the beginning."""
    return [Arrival(0.0, one.kind, one.seeds, one.classes) for one in load]


def _classes(kind: Kind, network: ScoreNetwork, numbers: random.Random) -> tuple[int, ...] | None:
    if network.classes is None or kind.condition == "none":
        return None
    if isinstance(kind.condition, int):
        return (kind.condition,) * kind.n
    return tuple(numbers.randrange(network.classes) for _ in range(kind.n))
