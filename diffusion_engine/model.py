"""What models of JSON have in common: known keys, and what is wrong in one sentence."""

from __future__ import annotations

import json
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from . import checks


class Model(BaseModel):
    """Frozen, of known keys; what is wrong is a ValueError in one sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: ClassVar[str]

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise ValueError(self.sentence(error)) from None

    @classmethod
    def model_validate(cls, obj: Any, **how: Any) -> Self:
        """One of a mapping. Raises ValueError in a sentence."""
        try:
            return super().model_validate(obj, **how)
        except ValidationError as error:
            raise ValueError(cls.sentence(error)) from None

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **how: Any) -> Self:
        """One of JSON text. Raises ValueError in a sentence."""
        try:
            made = json.loads(json_data)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"this {cls.kind} is no JSON ({error})") from None
        return cls.model_validate(made, **how)

    @classmethod
    def sentence(cls, error: ValidationError) -> str:
        """What is wrong, and what to do."""
        found = error.errors(include_url=False)
        if unknown := sorted(
            str(e["loc"][0]) for e in found if e["type"] == "extra_forbidden" and len(e["loc"]) == 1
        ):
            known = sorted(cls.model_fields)
            return (
                f"a {cls.kind} has no {', '.join(unknown)}{checks.nearest(unknown, known)}; it has "
                f"{', '.join(known)}"
            )
        first = found[0]
        where = "".join(
            f"[{part}]" if isinstance(part, int) else str(part) for part in first["loc"]
        )
        if first["type"] == "value_error":
            return str(first["ctx"]["error"])
        if first["type"] == "missing":
            return f"{where} is missing"
        message = first["msg"][0].lower() + first["msg"][1:]
        return f"{where or cls.kind}={checks.said(first['input'])}: {message}"
