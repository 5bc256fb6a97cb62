"""What every executor offers, and the loop they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from .. import trace
from ..networks.network import ScoreNetwork
from ..ops.step import StepArgs
from .packing import Packing
from .run import Run
from .space import Space

# (index of the row, the buffers after it)
After = Callable[[int, StepArgs], None]
# Makes the call of a packing, None for row 0's that makes none, and launches the step.
Advance = Callable[[Packing | None], None]


class Executor(ABC):
    """Runs the plans of a batch of samples to their ends. Objects are safe to share between threads.

    between_rows  whether something can be done between rows: callbacks, a progress bar
    """

    between_rows: bool = True

    @abstractmethod
    def execute(self, run: Run, after: After | None = None) -> tuple[Tensor, list[bool]]:
        """The samples [n, *shape] in the dtype of the state, and whether each stayed finite.

        after  called once a row's step has been launched; row 0 is the first
        """

    @abstractmethod
    def check(self, device: torch.device) -> None:
        """Raises where this executor cannot run on a device."""

    @abstractmethod
    def forget(self, network: ScoreNetwork) -> None:
        """Drops what is kept for a network that runs no more."""


def walk(run: Run, space: Space, advance: Advance, after: After | None = None) -> None:
    """The loop over rows: put in place what the row reads, make its call and its step."""
    read = write = None

    def row(i: int, call: Packing | None, following: Packing | None) -> None:
        nonlocal read, write
        if call is not None and call is not read:
            space.read(call)
            read = call
        if following is not write:
            space.write(following)
            write = following
        if run.noise is not None and space.args.noise is not None:
            space.fill_noise(run, i)
        advance(call)
        if after is not None:
            after(i, space.args)

    row = trace.traced("row", row, indexed=True)
    for i, (call, following) in enumerate(pairwise(run.calls)):
        row(i, call, following)


def result(run: Run, space: Space) -> tuple[Tensor, list[bool]]:
    """The samples, in memory of their own, and whether each stayed finite. Waits for the device."""
    assert space.args.status is not None
    parts = [space.args.slots[k][: run.samples] for k in range(run.parts)]
    samples = torch.cat(parts, dim=1)  # keeps the memory format
    return samples, [bad == 0 for bad in space.args.status[: run.samples].tolist()]
