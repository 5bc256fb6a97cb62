"""What every executor offers: batches, and the loop that runs one to its end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from ..networks.network import ScoreNetwork
from .batch import Batch
from .capacity import Capacity

# Called after each step of a batch.
After = Callable[[Batch], None]


class Executor(ABC):
    """Binds the stages of batches. Objects are safe to share between threads.

    between_rows  whether something can be done between rows: callbacks, a progress bar
    invariant     whether a sample's bits are the same in calls of any size, at any place
    """

    between_rows: bool = True
    invariant: bool = False

    @abstractmethod
    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        """A batch of the caller's own. Without a network the caller makes the outputs, Batch.step(outs=)."""

    @abstractmethod
    def batch(self, network: ScoreNetwork, capacity: Capacity) -> AbstractContextManager[Batch]:
        """An empty batch with room for a capacity, nobody else's while it is entered; it is kept for the next
        one, who finds it by its network and capacity."""

    def finish(self, batch: Batch, after: After | None = None) -> None:
        """Steps a batch while a seat has rows before it, and calls `after` with it after each step."""
        while batch.live:
            batch.step()
            if after is not None:
                after(batch)

    @abstractmethod
    def objection(self, device: torch.device) -> str | None:
        """Why this executor cannot run on a device, as a sentence; None where it can."""

    @abstractmethod
    def forget(self, network: ScoreNetwork) -> None:
        """Drops what is kept for a network that runs no more."""
