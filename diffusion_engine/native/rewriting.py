"""Lists of operations as graphs: who writes and who reads a buffer, and other values in place of some."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .operations import Epilogue, Operation
from .values import Buffer, Value


@dataclass
class Uses:
    """Of each buffer the operations that write it and those that read it, by their places; one that reads it
    twice is there twice."""

    writers: dict[Buffer, list[int]] = field(default_factory=lambda: defaultdict(list))
    readers: dict[Buffer, list[int]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, operations: Iterable[Operation | None]) -> Uses:
        made = cls()
        for i, operation in enumerate(operations):
            if operation is not None:
                for value in operation.writes():
                    made.writers[value.buffer].append(i)
                for value in operation.values():
                    made.readers[value.buffer].append(i)
        return made


def rewritten(operation: Operation, of: Callable[[Value], Value]) -> Operation:
    """The operation on other values."""

    def new(given: Any) -> Any:
        if isinstance(given, Value):
            return of(given)
        if isinstance(given, Epilogue):
            return replace(
                given, shift=new(given.shift), gate=new(given.gate), residual=new(given.residual)
            )
        if isinstance(given, (list, tuple)):
            return type(given)(map(new, given))
        if isinstance(given, dict):
            return {key: new(part) for key, part in given.items()}
        return given

    return replace(
        operation, **{f.name: new(getattr(operation, f.name)) for f in fields(operation)}
    )
