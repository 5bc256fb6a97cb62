"""`Case`: a small network with what it is called with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

MOST = 4  # entries of a batch
Maker = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Case:
    """A network and what it is given.

    module  in eval mode, called by the names of `inputs` and of `fixed`
    inputs  shape of a sample of each, or what makes a batch of it
    fixed   arguments that are the same in all calls, without a batch
    call    the method that is called
    """

    module: nn.Module
    inputs: dict[str, tuple[int, ...] | Maker]
    fixed: dict[str, Any] = field(default_factory=dict)
    call: str = "forward"

    def of(self, batch: int) -> list[Tensor]:
        """A batch of inputs, whose first samples are those of a smaller one."""
        made = []
        for i, maker in enumerate(self.inputs.values()):
            numbers = torch.Generator().manual_seed(i)
            if isinstance(maker, tuple):
                most = torch.randn(MOST, *maker, generator=numbers)
            else:
                most = maker(MOST, numbers)
            made.append(most[:batch].clone())
        return made


class Called(nn.Module):
    """A case as a function of a list of tensors, to a tuple of them."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.module, self.case = case.module, case

    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        given = dict(zip(self.case.inputs, tensors, strict=True))
        nested = {name: given.pop(name) for name in tuple(given) if "." in name}
        for name, tensor in nested.items():
            outer, inner = name.split(".")
            given.setdefault(outer, {})[inner] = tensor
        made = getattr(self.module, self.case.call)(**given, **self.case.fixed)
        return tuple(_tensors(made))


def _tensors(made: Any) -> list[Tensor]:
    if isinstance(made, Tensor):
        return [made]
    parts = made.values() if hasattr(made, "values") else made
    return [t for part in parts for t in _tensors(part)]


def whole(high: int, *shape: int) -> Maker:
    """Whole numbers below `high`."""
    return lambda batch, numbers: torch.randint(0, high, (batch, *shape), generator=numbers)


def times(batch: int, numbers: torch.Generator) -> Tensor:
    return torch.rand(batch, generator=numbers)


STEP = whole(1000)
Builder = Callable[[], Case]
