"""How many threads of the CPU run the calls of a network: a given number, or the fastest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from .. import checks
from ..backends.torch_threads import on
from ..choices import Kept, fewest, in_turns, structure
from ..choices.turns import clocked, is_count, numbers
from ..networks.network import ScoreNetwork
from .buffers import Inputs
from .packing import bucket
from .stages import as_called

MOST = 1024
MEASURED = "measured"
WANTED = f"give a whole number from 1 to {MOST}, {MEASURED!r}, or None"
ROUNDS, SECONDS = (3, 15), 0.3  # of a measurement
SLOW = 0.1  # seconds of a call that hardly notices where threads have to be started for it

# The number of all calls, those by the entries of a call, or what is to be measured.
Given = int | Mapping[int, int] | str | None


def checked(given: Any) -> Given:
    """A user's threads. Raises ValueError where they are none."""
    if given is None or given == MEASURED:
        return given
    if isinstance(given, Mapping) and given:
        return {_count(entries): _count(count) for entries, count in given.items()}
    return _count(given)


def _count(given: Any) -> int:
    count = checks.whole("threads", given, 1, WANTED)
    if count > MOST:
        raise ValueError(f"threads={given}: {WANTED}")
    return count


class Chosen:
    """The numbers of threads of one network, by the bucket of a call's entries; `kept` has them on disk."""

    def __init__(self, network: ScoreNetwork) -> None:
        about = ["eager", structure(network.module), list(network.shape)]
        self.kept = Kept("threads", about, is_count)
        self.threads: dict[int, int] = {}


class Threads:
    """Runs calls of networks on as many threads as were given, or measured to be the fastest.

    given  the number; a mapping of the entries of a call to one; or "measured": 1, powers of two and
           torch.get_num_threads() are tried in calls of each bucket, once

    What was measured goes along with a copy. Threads may share it: each sets its own number of threads.
    """

    def __init__(self, given: Given) -> None:
        self.given = given
        self._lock = RLock()
        self._chosen: WeakKeyDictionary[ScoreNetwork, Chosen] = WeakKeyDictionary()
        self._known: dict[str, dict[int, int]] = {}  # by what a choice is kept under

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            known = {name: dict(threads) for name, threads in self._known.items()}
        return {"given": self.given, "_known": known}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._chosen = RLock(), WeakKeyDictionary()

    def on(self, network: ScoreNetwork, given: Inputs) -> AbstractContextManager[None]:
        """The number of threads for a call, while it is entered."""
        return on(self._of(network, given))

    def calling(self, network: ScoreNetwork) -> Callable[..., Sequence[Tensor]]:
        """The network as a function that runs on them."""
        call = as_called(network)

        def on_threads(*given: Any) -> Sequence[Tensor]:
            with self.on(network, given):  # type: ignore[arg-type]
                return call(*given)

        return on_threads

    def named(self, network: ScoreNetwork) -> int | dict[str, int] | None:
        """As recipes name them."""
        if not isinstance(self.given, str):
            return written(self.given)
        with self._lock:
            return written(self._of_network(network).threads)

    def _of(self, network: ScoreNetwork, given: Inputs) -> int:
        size = len(given[0])
        if isinstance(self.given, Mapping):
            return named_for(self.given, size)
        if isinstance(self.given, int):
            return self.given
        entries, counts = bucket(size), numbers(torch.get_num_threads())
        with self._lock:  # one measures, and the others wait for what it finds
            threads = self._of_network(network)
            if threads.threads.get(entries) not in counts:
                found = threads.kept.get(entries)
                if found not in counts:
                    found = _fastest(network, given, counts)
                    threads.kept.put(entries, found)
                threads.threads[entries] = found
            return threads.threads[entries]

    def _of_network(self, network: ScoreNetwork) -> Chosen:
        chosen = self._chosen.get(network)
        if chosen is None:
            chosen = self._chosen[network] = Chosen(network)
            chosen.threads = self._known.setdefault(chosen.kept.path.name, {})
        return chosen


def _fastest(network: ScoreNetwork, given: Inputs, counts: Sequence[int]) -> int:
    """The number of threads on which a call is the fastest."""
    if len(counts) == 1:
        return counts[0]
    call = partial(as_called(network), *given)

    def seconds(count: int) -> float:
        with on(count):
            first = clocked(call)  # which may have to start its threads
            return first if first > SLOW else clocked(call)

    return fewest(in_turns(counts, seconds, ROUNDS, SECONDS))


def named_for(threads: Mapping[int, int], size: int) -> int:
    """The number of threads that is named for a call, or for all that are named. Raises ValueError where
    these have several."""
    if found := threads.get(bucket(size)):
        return found
    if len(each := set(threads.values())) == 1:
        return each.pop()
    known = ", ".join(map(str, sorted(threads)))
    raise ValueError(
        f"threads are named for calls of {known} entries, and this one has {size}: run the batches that "
        "they were measured for (batch_size), or give one number for all calls"
    )


def written(threads: int | Mapping[int, int] | None) -> int | dict[str, int] | None:
    """Threads as JSON holds them."""
    if isinstance(threads, Mapping):
        return {str(entries): threads[entries] for entries in sorted(threads)} or None
    return threads
