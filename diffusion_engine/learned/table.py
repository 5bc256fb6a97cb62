"""`Table`: learned coefficients as JSON, whose schema docs/learned.md has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from .. import checks
from ..model import Model

FORMAT = "diffusion-engine-learned/1"
CALLS = 64  # of a table at most
LARGEST = 1e6  # of its numbers
WORDS = 200  # of a text in it
LEVELS = ("times", "sigmas", "lams")

Form = Literal["x0", "eps", "v", "flow"]
Text = Annotated[str, Field(max_length=WORDS)]


def _number(given: Any, info: ValidationInfo) -> float:
    name = str(info.field_name)
    made = checks.number(name, given)
    if abs(made) > LARGEST:
        raise ValueError(f"{name}={checks.said(given)}: numbers of a table are within {LARGEST:g}")
    return made


def _rest(given: Any, info: ValidationInfo) -> float | None:
    return None if given is None else _number(given, info)


Number = Annotated[float, BeforeValidator(_number)]
Rest = Annotated[float | None, BeforeValidator(_rest)]
Levels = Annotated[tuple[Rest, ...], Field(min_length=2, max_length=CALLS + 1)]
Times = Annotated[
    tuple[Number | tuple[Number, Number, Number], ...], Field(min_length=2, max_length=CALLS + 1)
]


class Law(Model):
    """The process that a table was learned on: the name of its class, and its numbers."""

    kind: ClassVar[str] = "table's process"
    name: Text
    numbers: dict[Text, Number] = Field(default_factory=dict, max_length=32)

    def __hash__(self) -> int:
        return hash((self.name, *sorted(self.numbers.items())))


class Table(Model):
    """A solver of N calls, call i of state x_i, i = 0 ... N - 1; x_N is the sample.

        base "start":     x_i = a_i x_0 + sum_{j < i} b_ij D_j
        base "previous":  x_i = a_i x_{i-1} + sum_{j < i} b_ij D_j

    process  the law it was learned on, which a run has to have
    times, sigmas, lams  one of them: the level of each call, then that of x_N: times t or (t, alpha, sigma),
             sigma / alpha, 0 for clean data, or log(alpha / sigma), null for clean data
    of       what D_j is: call j's estimate of x0, or its eps, v = alpha eps - sigma x0, or
             flow = eps - x0
    base     what a_i multiplies
    a        of x_1 ... x_N; None: what keeps the noise level
    b        a row for each of x_1 ... x_N; a row that is shorter is of the newest calls. Its last number
             may be None: what keeps x0
    exact    whether a network that knows x0 is followed exactly, by every state that ends a step: checked to
             1e-9. Where it is false nothing is, and a is given
    network, family, guidance, note  what it was learned for, for who reads it

    Raises ValueError in a sentence.
    """

    kind: ClassVar[str] = "learned table"

    format: Literal["diffusion-engine-learned/1"] = FORMAT  # type: ignore[assignment]
    process: Law
    times: Times | None = None
    sigmas: Levels | None = None
    lams: Levels | None = None
    of: Form = "x0"
    base: Literal["start", "previous"] = "start"
    a: tuple[Number, ...] | None = Field(None, max_length=CALLS)
    b: tuple[Annotated[tuple[Rest, ...], Field(max_length=CALLS)], ...] = Field(
        min_length=1, max_length=CALLS
    )
    exact: bool = True
    network: Text | None = None
    family: Text | None = None
    guidance: Number | None = None
    note: Text | None = None

    @field_validator("exact", mode="before")
    @classmethod
    def _flag(cls, given: Any) -> bool:
        return checks.flag("exact", given)

    @model_validator(mode="after")
    def _agrees(self) -> Table:
        given = [name for name in LEVELS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a learned table has its levels once, as {', '.join(LEVELS[:2])} or {LEVELS[2]}; this one "
                f"has {' and '.join(given) or 'none'}"
            )
        if (levels := len(self.levels)) != self.calls + 1:
            raise ValueError(
                f"{given[0]} has {levels} levels and b {self.calls} rows; give the level of each call, and "
                "behind them that of the sample"
            )
        if any(level is None for level in self.levels[:-1]):
            raise ValueError(
                f"{given[0]}: null is clean data, where a run ends; give numbers before it"
            )
        if self.a is not None and len(self.a) != self.calls:
            raise ValueError(
                f"a has {len(self.a)} numbers for {self.calls} rows of b; give one a row"
            )
        self._check_rows()
        return self

    def _check_rows(self) -> None:
        open_ended = self.a is None
        for i, row in enumerate(self.b, 1):
            if not 1 <= len(row) <= i:
                raise ValueError(
                    f"b[{i - 1}] has {len(row)} numbers; x_{i} is made of 1 to {i} calls"
                )
            if any(weight is None for weight in row[:-1]):
                raise ValueError(
                    f"b[{i - 1}] has a null before its last number; what keeps x0 is the last"
                )
            open_ended = open_ended or row[-1] is None
        if open_ended and not self.exact:
            raise ValueError(
                "exact is false, and then nothing says what a null in b or a table without a means; give "
                "the numbers"
            )

    @property
    def levels(self) -> Sequence[Any]:
        """Those of the calls and of the sample, as they are given."""
        return self.times or self.sigmas or self.lams or ()

    @property
    def calls(self) -> int:
        return len(self.b)
