"""The body of `POST /v1/samples`, checked, and the `Asked` that it becomes."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import BeforeValidator, Field, field_validator

from .. import checks
from ..model import Model
from ..sampler.spec import Spec
from ..sampler.wanted import SEED
from ..workers.messages import About, Asked, Entries
from .conditions import Condition, each
from .pictures import read_tensors
from .refused import Refused
from .settings import NAME, Settings

DRAWN = 53  # bits of a seed that the server draws: a number of JavaScript holds them
CONCEPTS = 16
REFINE = 64  # iterations a step
OPTIONS = 64  # values within a solver's options
TABLE = 4096  # and where one is a table of coefficients
LARGEST = 1000  # a whole number among them: some count rows


def _scales(given: Any) -> Any:
    made = None if given is None else checks.numbers("guidance", given)
    return list(made) if isinstance(made, tuple) else made


def _seed(given: Any) -> int:
    if checks.whole("seed", given, 0, SEED) >= 2**64:
        raise ValueError(f"seed={checks.said(given)}: {SEED}")
    return given


Seed = Annotated[int, Field(ge=0, lt=2**64), BeforeValidator(_seed)]


class Body(Model):
    """A request for samples; keys that are left out, or null, are the model's own choice."""

    kind: ClassVar[str] = "request"

    model: str | None = Field(None, description="a name of GET /v1/models; the default one")
    spec: dict[str, Any] | str | None = Field(
        None, description="keys of a Spec over those of the model's default, or a solver's name"
    )
    n: int | None = Field(
        None, ge=1, description="samples; as many as seeds, conditions or x, or 1"
    )
    seed: Seed | None = Field(None, description="of the first sample; the next have the next ones")
    seeds: list[Seed] | None = Field(None, min_length=1, description="one a sample")
    condition: Condition = Field(None, description="a class or a prompt, or one a sample")
    negative: Condition = Field(
        None, description="what guidance leads away from: a prompt or a class, or one a sample"
    )
    guidance: Annotated[float | list[float] | None, BeforeValidator(_scales)] = Field(
        None, description="classifier-free scale, or one a sample"
    )
    compose: list[tuple[Condition, float]] | None = Field(
        None, min_length=1, max_length=CONCEPTS, description="[condition, weight] of each concept"
    )
    adapter: str | None = Field(None, pattern=f"^{NAME}$", description="weight deltas, by name")
    priority: float = Field(0.0, ge=-10, le=10, description="higher ones first; age adds 1 in 10 s")
    deadline: float | None = Field(None, gt=0, description="seconds from now")
    preview: int = Field(0, ge=0, le=10**6, description="rows between previews of a stream, or 0")
    tensors: str | None = Field(
        None,
        description="x, mask, known, measurement, noise, condition, negative: a safetensors file in base64",
    )
    stream: bool = Field(False, description="answer with server-sent events")
    wait: bool = Field(True, description="false: answer at once, and keep the result for a while")

    @field_validator("n", "preview", mode="before")
    @classmethod
    def _whole(cls, given: Any) -> Any:
        return None if given is None else checks.whole("n or preview", given, 0, "a whole number")

    @field_validator("priority", "deadline", mode="before")
    @classmethod
    def _number(cls, given: Any) -> Any:
        return None if given is None else checks.number("priority or deadline", given)

    @field_validator("stream", "wait", mode="before")
    @classmethod
    def _flag(cls, given: Any) -> bool:
        return checks.flag("stream or wait", given)


def wrong(error: ValueError, param: str | None = None) -> Refused:
    """What a client is told of a value that does not do."""
    return Refused(422, str(error), "invalid", param)


def asked(
    body: Body, about: About, settings: Settings, request: str, key: str, tensors: Mapping[str, Any]
) -> Asked:
    """The request of a body.

    request  its id; key: of who asks
    tensors  of body.tensors
    Raises Refused.
    """
    n = _count(body, about, settings.max_samples, tensors)
    seeds = body.seeds
    if seeds is None:
        first = body.seed
        seeds = (
            [secrets.randbits(DRAWN) for _ in range(n)]
            if first is None
            else list(range(first, first + n))
        )
    if seeds[-1] >= 2**64:
        raise Refused(422, f"seed={body.seed} and n={n}: {SEED}", param="seed")
    for name in ("condition", "negative"):
        if getattr(body, name) is not None and name in tensors:
            raise Refused(422, f"{name} is given twice; leave one out", param=name)
    most = settings.max_seconds
    return Asked(
        id=request, model=about.name, spec=spec_of(body.spec, about, settings), seeds=seeds,
        condition=each("condition", body.condition, n, about),
        negative=each("negative", body.negative, n, about), guidance=body.guidance,
        compose=_concepts(body.compose, n, about),
        adapter=body.adapter, priority=body.priority, deadline=min(body.deadline or most, most),
        key=key, preview=body.preview if body.stream else 0, tensors=dict(tensors),
    )  # fmt: skip


def arrays(body: Body) -> dict[str, np.ndarray]:
    """The tensors of a body. Raises Refused."""
    try:
        return {} if body.tensors is None else read_tensors(body.tensors)
    except ValueError as error:
        raise wrong(error, "tensors") from None


def _count(body: Body, about: About, most: int, tensors: Mapping[str, Any]) -> int:
    """How many samples are asked for."""
    x, said = tensors.get("x"), (body.seeds, body.condition, body.negative, body.guidance)
    implied = [len(v) for v in said if isinstance(v, list)]
    if x is not None and x.ndim == len(about.shape) + 1:
        implied.append(len(x))
    n = body.n or (implied[0] if implied else 1)
    if n > most:
        raise Refused(422, f"{n} samples are asked for, and a request may have {most}", param="n")
    if body.seeds is not None and body.seed is not None:
        raise Refused(422, "seed and seeds are both given; leave one out", param="seed")
    if body.seeds is not None and n != len(body.seeds):
        raise Refused(422, f"n={n} and {len(body.seeds)} seeds; give one a sample", param="seeds")
    return n


def _concepts(
    given: list[tuple[Any, float]] | None, n: int, about: About
) -> list[tuple[Entries, float]] | None:
    return given and [
        (each("compose", entries, n, about) or [], weight) for entries, weight in given
    ]


def spec_of(given: Any, about: About, settings: Settings) -> dict[str, Any]:
    """The keys of a Spec, checked, over those of a model's default. Raises Refused."""
    own = {"solver": given} if isinstance(given, str) else given or {}
    base = dict(about.default)
    times = {"times", "sigmas"} & own.keys()
    for name in ("times", "sigmas", *(("steps", "grid") if times else ())):
        if times or "steps" in own:
            base.pop(name, None)
    try:
        spec = Spec.model_validate(base | own)
    except ValueError as error:
        raise wrong(error, "spec") from None
    _check(spec, about, settings)
    return spec.model_dump(mode="json", exclude_unset=True)


def _check(spec: Spec, about: About, settings: Settings) -> None:
    """Raises Refused where a worker would plan for long, or a name is none of the package's."""
    name, options = spec.solver.name, spec.solver.options
    if name not in about.solvers:
        near = checks.nearest([name], about.solvers)
        known = near or f"; there are {', '.join(about.solvers)}"
        raise Refused(
            422, f"solver {checks.said(name)} does not suit {about.name!r}{known}", param="spec"
        )
    led = {} if spec.driver is None else spec.driver.options
    held = TABLE if name in ("learned", "exp_rk") else OPTIONS
    for who, given, most in (
        (name, options, held), (spec.driver and spec.driver.name, led, OPTIONS),
    ):  # fmt: skip
        if sum(_weigh(value) for value in given.values()) > most:
            raise Refused(422, f"the options of {who} hold more than {most} values", param="spec")
    steps = max(spec.steps, *(len(times) - 1 for times in (spec.times or (), spec.sigmas or ())))
    if steps > settings.max_steps:
        said = f"{steps} steps are asked for, and a request may have {settings.max_steps}"
        raise Refused(422, said, param="spec")
    # A step makes so many rows of the plan, at most: as many as its calls, or an option counts them.
    counted = [value for value in options.values() if type(value) is int]
    rows = steps * max(about.solvers[name].calls, spec.encoding or 0, *counted, 1) * _times(led)
    if rows > settings.max_rows:
        said = (
            f"{name} may make {rows} rows of {steps} steps, and a plan may have {settings.max_rows}"
        )
        raise Refused(422, f"{said}; ask for fewer steps", param="spec")
    if (spec.encoding or 0) > REFINE:
        raise Refused(422, f"encoding={spec.encoding}: at most {REFINE} iterations", param="spec")
    if isinstance(spec.guidance, tuple) and len(spec.guidance) > settings.max_samples:
        raise Refused(422, "guidance has more scales than a request has samples", param="spec")


def _times(options: Mapping[str, Any]) -> int:
    """How many times as many rows a driver may make by its options: its whole numbers count rows, in a list
    together, but for those that bound something."""
    counts = [1]
    for name, value in options.items():
        if type(value) is int and not name.startswith("max_"):
            counts.append(value)
        for part in value if isinstance(value, list) else ():
            inner = part if isinstance(part, list) else [part]
            counts.append(math.prod(n for n in inner if type(n) is int))
    return max(counts)


def _weigh(value: Any, depth: int = 0) -> int:
    """How many values an option holds. Raises Refused on one that nothing takes."""
    if isinstance(value, (list, dict)):
        if depth > 2:
            return TABLE + 1
        inner = value.values() if isinstance(value, dict) else value
        return 1 + sum(_weigh(part, depth + 1) for part in inner)
    small = not isinstance(value, int) or abs(value) <= LARGEST
    if not small or (isinstance(value, float) and not math.isfinite(value)):
        raise Refused(422, f"an option is {checks.said(value)}, which is too large", param="spec")
    return 1 + (len(value) if isinstance(value, str) else 0) // 64
