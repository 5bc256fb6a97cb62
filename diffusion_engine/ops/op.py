"""What an op is made of: its definition, and the other implementations that table.py names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

Args = TypeVar("Args")


def _none(args: Any) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Implementation(Generic[Args]):
    """A way to compute an op, a constant of the module that table.py names.

    bind       makes the launch of checked arguments, which has no objection
    objection  says in a sentence why arguments cannot be taken, or returns None
    """

    bind: Callable[[Args], Callable[..., Any]]
    objection: Callable[[Args], str | None] = _none


@dataclass(frozen=True)
class Operator:
    """A torch operator of an op.

    schema  its name and signature; mutated arguments are marked
    run     what it does
    fake    checks the arguments and returns what `run` would, without computing it
    """

    schema: str
    run: Callable[..., Any]
    fake: Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Op(Implementation[Args]):
    """An op by its definition in torch.

    plain      small arguments on a device, which every implementation there takes
    operators  what torch.compile and torch.export see of it
    """

    plain: Callable[[torch.device], Args]
    operators: tuple[Operator, ...]
