"""What samples shall be, as a body says it: a class or a prompt, or one a sample."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo

from .. import checks
from ..workers.messages import About, Entries
from .refused import Refused

LABEL = "a class is a whole number below 2^31, and a prompt a text"


def _entries(given: Any, info: ValidationInfo) -> Any:
    name = info.field_name or "condition"
    if given is None:
        return None
    if not isinstance(given, list):
        return _entry(name, given)
    made = [_entry(name, one) for one in given]
    if len({type(one) for one in made}) > 1:
        raise ValueError(f"{name} holds classes and prompts; give either")
    return made


def _entry(name: str, given: Any) -> int | str:
    if isinstance(given, str):
        return checks.prompt(name, given)
    if checks.whole(name, given, 0, LABEL) >= 2**31:
        raise ValueError(f"{name}={checks.said(given)}: {LABEL}")
    return int(given)


Prompt = Annotated[str, Field(min_length=1, max_length=checks.LONGEST)]
Condition = Annotated[int | Prompt | list[int] | list[Prompt] | None, BeforeValidator(_entries)]


def each(name: str, given: Any, n: int, about: About) -> Entries | None:
    """One a sample. Raises Refused where there are not as many, or the model knows none such."""
    if given is None:
        return None
    entries = given if isinstance(given, list) else [given] * n
    if len(entries) != n:
        raise Refused(
            422, f"{len(entries)} entries for {n} samples in {name}; give one, or one a sample",
            param=name,
        )  # fmt: skip
    if entries and (wrong := objection(name, entries[0], about)):
        raise Refused(422, wrong, "unsuitable", name)
    return entries


def objection(name: str, entry: int | str, about: About) -> str | None:
    """Why a model takes no such condition."""
    if isinstance(entry, str) and not about.text:
        known = f"give a class, 0 to {about.classes - 1}" if about.classes else f"leave {name} out"
        return f"{name} is a prompt and the model {about.name!r} reads none; {known}"
    if isinstance(entry, int) and about.text:
        return (
            f"{name}={entry}: {about.name!r} has no classes; give a prompt, such as 'a red heart'"
        )
    return None
