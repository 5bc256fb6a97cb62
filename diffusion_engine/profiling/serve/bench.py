"""The contenders over one network, warm, and what a load comes to with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ...engine import Engine
from ...networks.network import ScoreNetwork
from .drive import Course, Static, drive
from .load import Arrival, Kind, arrivals, at_once
from .peers import Peers, in_turn
from .report import Line, Report, line

MORE = 1024  # requests that the queue holds beyond the load's own


class Bench:
    """An engine, one that batches statically, and samplers, over the same network.

    network   a ScoreNetwork
    mix       the kinds of requests
    capacity  samples of a batch
    queue     requests that may wait
    batch     "bucket" or "fixed", as in Engine
    how       device, dtype, backend, accelerate, executor and compile, as in Sampler
    """

    def __init__(
        self, network: ScoreNetwork, mix: Sequence[Kind], capacity: int = 16, queue: int = MORE,
        batch: str = "bucket", **how: Any,
    ) -> None:  # fmt: skip
        self.network, self.mix, self.capacity = network, tuple(mix), capacity
        engine: Mapping[str, Any] = {"max_queue": queue + MORE, "batch": batch, **how}
        self.engines = {
            "engine": Engine(network, capacity, **engine), "static": Static(network, capacity, **engine)
        }  # fmt: skip
        self.peers = Peers(network, self.mix, capacity, how)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        for engine in self.engines.values():
            engine.close(drain=False)

    def load(self, count: int, rate: float, seed: int = 0) -> list[Arrival]:
        """Requests of the mix."""
        return arrivals(self.mix, self.network, count, rate, seed)

    def warm(self) -> None:
        """Runs what a first call makes: every kind, and calls of every size that its end comes by."""
        load = at_once(self.load(2 * self.capacity + len(self.mix), 1.0, seed=1))
        for engine in self.engines.values():
            drive(engine, load)
        self.peers.alone(load[: len(self.mix)])
        self.peers.lockstep(load)

    def compare(self, load: Sequence[Arrival]) -> Report:
        """The load as it comes, and its requests all at once, with each contender."""
        together = at_once(load)
        took = self.peers.alone(load)
        lines = [
            self._line(name, drive(e, together), drive(e, load)) for name, e in self.engines.items()
        ]
        lines.append(self._line("one at a time", in_turn(together, took), in_turn(load, took)))
        images = sum(len(one.seeds) for one in load)
        lines.append(Line("lockstep", images / self.peers.lockstep(load)))
        return Report(tuple(lines), len(load), images, self.evaluations(load), self.capacity)

    def evaluations(self, load: Sequence[Arrival]) -> int:
        """Entries of network calls that the load takes."""
        return sum(self.peers.evaluations(one.kind) * len(one.seeds) for one in load)

    @staticmethod
    def _line(name: str, together: Course, spread: Course) -> Line:
        return line(name, together.images / together.seconds, spread)
