"""`Host`: what requests and lanes know of the network that they belong to. It is a `Served`."""

from __future__ import annotations

from typing import Any, Protocol

from ..executors import Batch
from ..networks.network import ScoreNetwork
from .probe import Probe
from .weights import Weights


class Host(Protocol):
    """A network of the engine; Served explains it.

    capacity  samples of one batch
    lanes     by what their requests have in common
    """

    name: str
    capacity: int
    lanes: dict[Any, Any]
    weights: Weights
    turned: float

    @property
    def network(self) -> ScoreNetwork: ...

    @property
    def busy(self) -> bool: ...

    @property
    def bytes(self) -> int: ...

    @property
    def packed(self) -> int: ...

    def untried(self, ticket: Any) -> bool: ...

    def open(self, ticket: Any) -> tuple[Batch, Probe | None]: ...

    def load(self) -> float: ...

    def stale(self) -> list[Any]: ...

    def shut(self, lane: Any) -> None: ...
