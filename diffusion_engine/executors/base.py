"""What every executor offers: batches, and the loop that runs one to its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..networks.network import ScoreNetwork
from .batch import Batch
from .buffers import Inputs
from .capacity import Capacity
from .stages import as_called

# Called after each step of a batch.
After = Callable[[Batch], None]


class Executor(ABC):
    """Binds the stages of batches. Objects are safe to share between threads.

    between_rows  whether something can be done between rows: callbacks, a progress bar
    invariant     whether it can make a sample's bits the same in calls of any size, at any place; `exact`
                  says of which networks it does
    precision     the dtype in which it computes networks by itself, whose weights, inputs and outputs are
                  float32 then; None computes in the dtype of a network's input
    """

    between_rows: bool = True
    invariant: bool = False
    precision: torch.dtype | None = None

    @abstractmethod
    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        """A batch of the caller's own. Without a network the caller makes the outputs, Batch.step(outs=)."""

    @abstractmethod
    def batch(self, network: ScoreNetwork, capacity: Capacity) -> AbstractContextManager[Batch]:
        """An empty batch with room for a capacity, nobody else's while it is entered; it is kept for the next
        one, who finds it by its network and capacity."""

    def ready(self, network: ScoreNetwork, capacity: Capacity) -> None:  # noqa: B027
        """Settles how a network runs in batches of a capacity, before anything is asked of it."""

    def runs(self, network: ScoreNetwork) -> Executor:
        """The executor that runs a network: itself, unless it chooses among others."""
        return self

    def captures(self, device: torch.device) -> bool:
        """Whether it may record steps on a device, within which nothing can be decided."""
        return False

    def finish(self, batch: Batch, after: After | None = None) -> None:
        """Steps a batch while a seat has rows before it, and calls `after` with it after each step."""
        while batch.live:
            batch.step()
            if after is not None:
                after(batch)

    def calling(self, network: ScoreNetwork) -> Callable[..., Sequence[Tensor]]:
        """The network as a function, with the bits of this executor's batches."""
        return as_called(network)

    def exact(self, network: ScoreNetwork, given: Inputs) -> bool:
        """Whether a sample's bits are the same in calls of any size, at any place.

        given  inputs of a call like those that are meant
        """
        return False

    def form(self, network: ScoreNetwork) -> str | None:
        """What computes the network, as recipes name it, where the bits are not the module's own."""
        return None

    def dtype_of(self, network: ScoreNetwork) -> torch.dtype | None:
        """In what a network is computed, which of some is not `precision`; None as there."""
        return self.precision

    def packed(self, network: ScoreNetwork) -> int:
        """Bytes of a network's weights that it keeps beside the network's own."""
        return 0

    def threads_of(self, network: ScoreNetwork) -> int | dict[str, int] | None:
        """How many threads of the CPU run a network's calls, as recipes name them: the number of all, or
        those that were measured, by the entries of a call; None where torch's number is left alone."""
        return None

    @abstractmethod
    def objection(self, device: torch.device) -> str | None:
        """Why this executor cannot run on a device, as a sentence; None where it can."""

    @abstractmethod
    def forget(self, network: ScoreNetwork) -> None:
        """Drops what is kept for a network that runs no more."""
