"""The types of what a `Spec` and a `Recipe` hold, checked as they are read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from .. import checks
from ..processes import Point
from .numbers import SIZE, runs
from .wanted import SEED


def _number(given: Any, info: ValidationInfo) -> float:
    return checks.number(str(info.field_name), given)


def _labels(given: Any, info: ValidationInfo) -> Any:
    """Whole numbers, of a sample one or a nested list of them, or prompts."""
    if isinstance(given, (list, tuple)):
        return tuple(_labels(entry, info) for entry in given)
    if isinstance(given, str):
        return checks.prompt(str(info.field_name), given)
    value = checks.plain(given)
    if type(value) is not int:
        raise ValueError(
            f"{info.field_name}={checks.said(given)}: labels are whole numbers or prompts"
        )
    return value


def _seed(given: Any) -> int:
    seed = checks.whole("seeds", given, 0, SEED)
    if seed >= 2**64:
        raise ValueError(f"seeds={seed}: {SEED}")
    return seed


def _level(given: Any) -> Any:
    return (given.t, given.alpha, given.sigma) if isinstance(given, Point) else given


Number = Annotated[float, BeforeValidator(_number)]
Labels = Annotated[tuple[int | str | tuple[Any, ...], ...], BeforeValidator(_labels)]
Seed = Annotated[int, Field(ge=0, lt=2**64), BeforeValidator(_seed)]
Count = Annotated[int, Field(ge=1, le=1024, strict=True)]  # of threads
Entries = Annotated[int, Field(ge=1, le=SIZE)]  # of a call
Level = Annotated[tuple[Number, Number, Number], BeforeValidator(_level)]  # t, alpha, sigma
Range = tuple[float, float]
Dtype = Literal["float16", "bfloat16", "float32", "float64"]
# What a recipe cannot hold and is given again.
Need = Literal[
    "condition", "compose", "negative", "x", "mask", "known", "measurement", "noise", "plan", "driver"
]  # fmt: skip
# Runs of each sample: so many calls, and the size and place of each entry of one (buckets.py).
Calls = Annotated[tuple[tuple[tuple[int, ...], ...], ...], AfterValidator(runs)]
