"""What rows of each candidate take, timed in turns, and by what its outputs differ from the module's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

from torch import Tensor

from ..choices import in_turns
from ..executors import Batch, Capacity, Executor
from ..executors.batch import plain
from ..executors.packing import bucket
from ..executors.stages import as_called
from ..native.held import difference
from ..native.stages import differentiates
from ..networks.network import ScoreNetwork
from . import trial
from .candidates import WITHIN, Candidate, said
from .choice import Choice, Tried
from .trial import Trial

FAR = 3.0  # times of the fastest, from where on a candidate is timed no further
ROUNDS, SECONDS = (3, 15), 0.5  # of turns of the others
ITSELF = ("eager", "graph")  # whose calls are the module's own
DIFFERENTIATES = "the network differentiates in its forward, and torch calls it"

# An empty batch of an executor, while it is entered.
Enter = Callable[[Executor, ScoreNetwork, Capacity], AbstractContextManager[Batch]]


def measured(
    network: ScoreNetwork, capacity: Capacity, among: Sequence[Candidate], enter: Enter
) -> Choice:
    """The choice among candidates for batches of a capacity. What the others made for it is let go.

    enter  how a batch is had
    """
    began = trial.clock()
    tried = [Tried(one.name, _dtype(one, capacity), reason=one.reason) for one in among]
    if differentiates(network):
        tried = [_refused(one, DIFFERENTIATES) for one in tried]
    left = [one.executor for one in tried if one.reason is None]
    if left not in ([], ["eager"]):
        with plain(), ExitStack() as stack:
            _Measuring(network, capacity, among, tried).run(stack, enter)
    choice = Choice(network.name, capacity.room, tuple(tried), trial.clock() - began)
    for one, done in zip(among, tried, strict=True):
        if one.executor is not None and not (choice.fits and done is choice.kept):
            one.executor.forget(network)
    return choice


def _dtype(one: Candidate, capacity: Capacity) -> str:
    """The name of that in which a candidate computes."""
    plain = one.dtype if one.executor is None else one.executor.precision or capacity.dtype
    return str(plain).removeprefix("torch.")


def _refused(one: Tried, reason: str) -> Tried:
    return one if one.reason is not None or one.executor in ITSELF else replace(one, reason=reason)


class _Measuring:
    """tried  of each candidate what is known; written"""

    def __init__(
        self,
        network: ScoreNetwork,
        capacity: Capacity,
        among: Sequence[Candidate],
        tried: list[Tried],
    ) -> None:
        self._network, self._capacity, self._among, self._tried = network, capacity, among, tried
        self._trials: dict[int, Trial] = {}
        self._want: list[Tensor] = []  # what the module makes of the first call

    def run(self, stack: ExitStack, enter: Enter) -> None:
        firsts = {
            i: self._first(i, stack, enter)
            for i, one in enumerate(self._tried)
            if one.reason is None
        }
        near = FAR * min(firsts.values(), default=0.0)
        turns = [i for i, seconds in firsts.items() if seconds <= near and i in self._trials]
        times = firsts | in_turns(turns, self._turn, ROUNDS, SECONDS)
        for i, one in enumerate(self._tried):
            if one.reason is None and math.isfinite(times[i]):
                threads = self._threads(i)
                self._tried[i] = replace(one, ms=1e3 * times[i], threads=threads)

    def _first(self, i: int, stack: ExitStack, enter: Enter) -> float:
        """Seconds of a candidate's row; infinite where there is none, or its outputs are others."""
        one = self._among[i]
        try:
            assert one.executor is not None
            batch = stack.enter_context(enter(one.executor, self._network, self._capacity))
            made = Trial(batch, self._network, self._capacity)
            error = None if one.name in ITSELF else self._error(made)
            seconds = made.first()
        except Exception as failed:
            return self._fails(i, failed)
        self._tried[i] = replace(self._tried[i], error=error)
        if error is not None and not error <= WITHIN[one.dtype]:
            self._tried[i] = _refused(
                self._tried[i],
                f"its outputs are off by more than {WITHIN[one.dtype]:.0e} of the largest",
            )
            return math.inf
        self._trials[i] = made
        return seconds

    def _turn(self, i: int) -> float:
        try:
            return self._trials[i].turn()
        except Exception as failed:  # memory ran out, say
            return self._fails(i, failed)

    def _fails(self, i: int, error: Exception) -> float:
        """The module itself stays: what the trial gave it may not suit it, and a run's inputs do."""
        self._tried[i] = _refused(self._tried[i], said(error))
        return math.inf

    def _error(self, made: Trial) -> float:
        """Of the outputs of a first call, of the largest of the module's."""
        if not self._want:
            self._want = [out.clone() for out in as_called(self._network)(*made.inputs())]
        return difference(self._want, made.outputs(), self._capacity.room)

    def _threads(self, i: int) -> int | None:
        executor, entries = self._among[i].executor, self._capacity.room
        named = None if executor is None else executor.threads_of(self._network)
        if isinstance(named, Mapping):
            return named.get(str(entries)) or named.get(str(bucket(entries)))
        return named
