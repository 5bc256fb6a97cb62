"""`Spec`, what is asked of a sampler, and `Recipe`, what made samples: the one place that knows their keys.

The command line, files and Python read and write them through these models. JSON has no infinity: there
it is 1e308.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from .. import checks
from ..model import Model
from ..plan.guidance import CLASSIFIER, checked_interval
from ..processes import Point
from ..processes.grids import STEPS
from .fields import Calls, Count, Dtype, Entries, Labels, Level, Need, Number, Range, Seed
from .methods import Driven, Forecast, Method, Steered
from .numbers import SIZE, bucket
from .wanted import REFINE, START

FORMAT, RNG = "diffusion-engine-recipe/2", "philox4x32-10/2"
FIRST = "diffusion-engine-recipe/1"  # its solvers' `max_order` was named `order`
BEFORE = "philox4x32-10/1"  # drew other normals where x was given, and the same elsewhere

# Of what computes a network: native/avx512/amx, openvino/2026.4.1/bfloat16, accelerate/avx2/fused
RUNTIMES = r"native/\w+(/\w+)?|(onnxruntime|openvino)/[\w.+]+/\w+"
FORM = rf"^({RUNTIMES}|accelerate/\w+/[a-z][a-z0-9_ ,]*(/[0-9a-f]+)?)$"
INFINITY = 1e308
CLIP = "give a range (low, high) with low < high, None or 'network'"


class Asked(Model):
    """What a Spec and a Recipe both say: how a run differs from one of the solver alone."""

    # What belongs to a request; the rest is the sampler's.
    REQUEST: ClassVar[tuple[str, ...]] = ("start", "noised", "encoding", "noise")

    solver: Method = Field(description="its name, with its options")
    driver: Driven | None = Field(None, description="what leads samples beside the solver's table")
    guider: Steered | None = Field(
        None,
        description="what guides by a number of each sample: apg, rescale, cfg_zero, tcfg, threshold",
    )
    interval: Range = Field(
        (0.0, math.inf),
        description="(low, high] of sigma / alpha in which guidance acts",
        json_schema_extra={"default": [0.0, INFINITY]},
    )
    forecast: Forecast | None = Field(
        None,
        description="calls that are not made but forecast: every=2, order=1 and after=2, or calls=[3,5]",
    )
    classifier_scale: float = Field(1.0, description="of the network's classifier, 0 for none")
    clip: Range | Literal["network"] | None = Field(
        "network", description="range of the estimate of x0; network: the network's own"
    )
    dtype: Dtype | None = Field(
        None, description="in which the network is computed; the module's own"
    )
    start: float | None = Field(None, description="time at which x begins")
    noised: bool = Field(False, description="x is the state of that time already, as encode's is")
    encoding: int | None = Field(
        None,
        ge=0,
        description="fixed-point iterations a step, towards the solver's exact inverse",
    )
    noise: Literal["brownian"] | None = Field(
        None, description="brownian: one path of noise, whatever the steps"
    )

    @field_validator("driver", "guider", mode="before")
    @classmethod
    def _driver(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given

    @field_validator("interval", mode="before")
    @classmethod
    def _interval(cls, given: Any) -> Range:
        low, high = checked_interval(given)
        return low, math.inf if high >= INFINITY else high

    @field_serializer("interval")
    def _bounded(self, interval: Range) -> Range:
        return interval[0], min(interval[1], INFINITY)

    @field_validator("classifier_scale", mode="before")
    @classmethod
    def _scale(cls, given: Any) -> float:
        return checks.number("classifier_scale", given, CLASSIFIER)

    @field_validator("clip", mode="before")
    @classmethod
    def _clip(cls, given: Any) -> Any:
        whole = given is None or (isinstance(given, str) and given == "network")
        return given if whole else checks.pair("clip", given, CLIP)

    @field_validator("dtype", mode="before")
    @classmethod
    def _dtype(cls, given: Any) -> Any:
        return None if given is None else str(given).removeprefix("torch.")

    @field_validator("start", mode="before")
    @classmethod
    def _start(cls, given: Any) -> float | None:
        return None if given is None else checks.number("start", given, START)

    @field_validator("noised", mode="before")
    @classmethod
    def _noised(cls, given: Any) -> bool:
        return checks.flag("noised", given)

    @field_validator("encoding", mode="before")
    @classmethod
    def _encoding(cls, given: Any) -> int | None:
        return None if given is None else checks.whole("refine", given, 0, REFINE)

    @field_validator("noise", mode="before")
    @classmethod
    def _noise(cls, given: Any) -> Any:
        if given not in (None, "brownian"):
            raise ValueError(f"noise={checks.said(given)}: give 'brownian', or leave it out")
        return given

    def arguments(self) -> dict[str, Any]:
        """The keywords of Sampler, but for the solver."""
        import torch  # the command line reads these models before it settles how torch waits

        dtype = None if self.dtype is None else getattr(torch, self.dtype)
        named = ("interval", "classifier_scale", "clip", "forecast")
        driver, guider = (given and given.model_dump() for given in (self.driver, self.guider))
        made = {n: getattr(self, n) for n in named}
        return made | {"dtype": dtype, "driver": driver, "guider": guider}

    def request(self) -> dict[str, Any]:
        """The keywords of `Sampler.sample`."""
        return {name: getattr(self, name) for name in self.REQUEST}


class Spec(Asked):
    """What is asked of a sampler, whatever the network's weights are.

    The times are `steps` intervals of a grid, or `times`, or `sigmas`; Sampler and its `sample` explain the
    fields. A solver may be given by its name alone.
    """

    kind: ClassVar[str] = "spec"

    steps: int = Field(20, ge=1, description="intervals of the grid")
    grid: str | None = Field(None, description="uniform, quadratic, karras, lambda, trailing, ...")
    end: str = Field(
        "zero", description="zero: end at clean data; t_min: at the process's first time"
    )
    times: tuple[Number | Level, ...] | None = Field(
        None, description="descending times t, or levels (t, alpha, sigma)"
    )
    sigmas: tuple[Number, ...] | None = Field(None, description="descending sigma / alpha")
    guidance: float | tuple[float, ...] = Field(
        1.0, description="classifier-free scale, 1 for none"
    )

    @field_validator("solver", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return {"name": given, "options": {}} if isinstance(given, str) else given

    @field_validator("steps", mode="before")
    @classmethod
    def _steps(cls, given: Any) -> int:
        return checks.whole("steps", given, 1, STEPS)

    @field_validator("guidance", mode="before")
    @classmethod
    def _guidance(cls, given: Any) -> Any:
        return checks.numbers("guidance", given)

    def arguments(self) -> dict[str, Any]:
        """The keywords of Sampler, but for the solver."""
        named = ("steps", "grid", "end", "sigmas", "guidance")
        times = self.times and [Point(*t) if isinstance(t, tuple) else t for t in self.times]
        return super().arguments() | {n: getattr(self, n) for n in named} | {"times": times}


class Recipe(Asked):
    """With a network, what makes the same samples again: a Spec whose times are points, and of every sample
    its seed, condition and scales.

    points     (t, alpha, sigma) of each
    decoder    the scale of one that made images, else None
    condition  a class or a prompt a sample; compose: those of each sample, where several are composed
    negative   that of the unconditional branch of each sample, where it is not the network's null
    guidance   a scale a sample, or the weights of the composed conditions
    bucket     entries of every call of the network, where it had one size; None as they come
    calls      of each sample, where calls had many sizes, runs (calls, size, place, size, place, ...) of so
               many calls, each of whose entries was at a place of a call of a size
    network_form  what computed the network, where its bits are not the module's own: native/avx512, in
               bfloat16 native/avx512/amx, openvino/2026.4.1/float32, or accelerate/avx512/fused with a digit
               for each 3x3 convolution, say
    threads    of the CPU that computed it, of all calls or by the entries of one; None where torch's number
               was left alone
    needs      what was given beside, and JSON does not hold
    origins    what its conditions were made of, of those that say it
    """

    kind: ClassVar[str] = "recipe"
    # One entry a sample, or None.
    PER_SAMPLE: ClassVar[tuple[str, ...]] = (
        "seeds",
        "condition",
        "compose",
        "negative",
        "guidance",
        "calls",
    )

    format: Literal["diffusion-engine-recipe/2", "diffusion-engine-recipe/1"]
    rng: Literal["philox4x32-10/2", "philox4x32-10/1"]
    network: str = "network"
    points: tuple[Level, ...]
    interval: Range
    clip: Range | None
    dtype: Dtype
    start: float | None
    noised: bool
    decoder: dict[str, float] | None = None
    seeds: tuple[Seed, ...]
    condition: Labels | None
    compose: tuple[Labels, ...] | None = None
    negative: Labels | None = None
    guidance: tuple[Number, ...] | tuple[tuple[Number, ...], ...]
    bucket: int | None = Field(None, ge=1, le=SIZE)
    calls: Calls | None = None
    network_form: str | None = Field(None, pattern=FORM)
    threads: Count | dict[Entries, Count] | None = None
    needs: tuple[Need, ...]
    origins: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_this_engine(cls, given: Any) -> Any:
        """Raises ValueError where this is no recipe, or one of another version."""
        if not isinstance(given, Mapping) or "format" not in given:
            raise ValueError(
                "this is not a recipe of this engine: it says no format; use Result.recipe"
            )
        needs = given.get("needs", ())
        if not isinstance(needs, (list, tuple)):
            raise ValueError(
                f"the recipe's needs={needs!r} are no list of names; use Result.recipe"
            )
        same = RNG if "x" in needs else BEFORE
        for key, own, also in (("format", FORMAT, FIRST), ("rng", RNG, same)):
            if given.get(key) not in (own, also):
                raise ValueError(
                    f"the recipe's {key} is {given.get(key)!r} and this version reads {own!r}; use the "
                    "version that made it"
                )
        return given

    @field_validator("bucket", mode="before")
    @classmethod
    def _bucket(cls, given: Any) -> int | None:
        return None if given is None else bucket(given)

    @classmethod
    def sentence(cls, error: ValidationError) -> str:
        first = error.errors()[0]
        said = super().sentence(error)
        if not first["loc"] or said.startswith("a recipe has no"):
            return said
        what = ", it names no solver" if first["loc"][0] == "solver" else ""
        return f"this is not a recipe of this engine{what} ({said}); use Result.recipe"

    def arguments(self) -> dict[str, Any]:
        """The keywords of Sampler, but for the solver."""
        return super().arguments() | {"times": [Point(*level) for level in self.points]}

    def request(self) -> dict[str, Any]:
        """The keywords of `Sampler.sample`, but for what the recipe needs."""
        made = super().request() | {
            "seeds": list(self.seeds), "bucket": self.bucket, "calls": self.calls,
        }  # fmt: skip
        if self.negative is not None:
            made["negative"] = list(self.negative)
        if not self.guidance or not isinstance(self.guidance[0], tuple):
            classes = None if self.condition is None else list(self.condition)
            return made | {"condition": classes, "guidance": list(self.guidance)}
        if self.compose is None:
            return made
        pairs = zip(zip(*self.compose, strict=True), zip(*self.guidance, strict=True), strict=True)  # type: ignore[arg-type]
        return made | {"compose": list(pairs)}
