"""What opens a network and runs it: a runtime, as `Opened` sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..networks.network import ScoreNetwork
from .export import Model, Source
from .file import File


@dataclass(frozen=True, order=True)
class Setting:
    """How a runtime runs a call.

    threads   that do
    spinning  whether those that wait for work look for it all the time; None where the runtime decides
    """

    threads: int
    spinning: bool | None = None


class Session(Protocol):
    """A model that a runtime has opened. Objects are safe to share between threads."""

    def bound(self, given: Sequence[Tensor], outs: Sequence[Tensor]) -> Callable[[], object]:
        """A call that reads and writes these tensors where they lie, for one thread at a time."""


class Runtime(Protocol):
    """What opens models: a `Provider`."""

    name: str
    title: str
    each: bool
    fallback: bool

    def form(self, network: ScoreNetwork) -> str | None:
        """What computes a network, as recipes name it."""

    def dtype_of(self, network: ScoreNetwork) -> torch.dtype | None:
        """In what a network is computed; None for float32."""

    def in_float32(self, network: ScoreNetwork, reason: str) -> None:
        """Has a network computed in float32 from now on."""

    def candidates(self, entries: int) -> list[Setting]:
        """The ways to run a call of so many entries, one where nothing is to be measured."""

    def load(
        self,
        source: Source,
        model: Model | File,
        setting: Setting,
        shapes: list[list[int]] | None,
        dtype: torch.dtype,
    ) -> Session:
        """A model, opened."""
