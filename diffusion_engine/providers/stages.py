"""The stages of a batch whose network another runtime calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..executors.buffers import Buffers, Inputs
from ..executors.packing import bucket
from ..executors.stages import Stages
from ..native.called import taken_apart
from ..native.stages import differentiates
from ..networks.network import ScoreNetwork
from .opened import Opened, Sessions
from .runtime import Session


class Owner(Protocol):
    """Opens networks for batches, with the memory of all of them in view: a `Provider`."""

    backend: str

    def opened(self, network: ScoreNetwork, given: Inputs, look: bool = False) -> Opened:
        """A network as it is now."""

    def session(self, opened: Opened, count: int) -> Session:
        """What runs calls of so many entries."""


@dataclass(eq=False)
class Bound:
    """A call over tensors that stay.

    places  where its inputs lie
    given   these, which are kept
    outs    what it returns, and the next call overwrites
    """

    places: list[int]
    given: list[Tensor]
    outs: list[Tensor]
    run: Callable[[], object]


class Calls:
    """A network as a function of its inputs, read where they lie, for one thread at a time.

    Weights that torch wrote to are seen before each call; `renew` has the next one look at all else.
    """

    def __init__(self, network: ScoreNetwork, owner: Owner) -> None:
        self._network, self._owner = network, owner
        self._opened: Opened | None = None
        self._sessions: Sessions | None = None  # of the last call
        self._bound: dict[int, Bound] = {}  # by the entries of a call
        self._look = True

    @property
    def bytes(self) -> int:
        """Of the memory of its outputs."""
        return sum(t.nbytes for bound in list(self._bound.values()) for t in bound.outs)

    def renew(self) -> None:
        """The module may be another one."""
        self._look = True

    def release(self) -> None:
        """Lets go of sessions."""
        self._bound.clear()
        if self._opened is not None:
            self._opened.release()
        self._look = True

    def __call__(self, *given: Any) -> Sequence[Tensor]:
        opened = self._opened
        if self._look or opened is None or opened.written():
            opened = self._followed(given)  # type: ignore[arg-type]
        tensors = [tensor.contiguous() for tensor in taken_apart(given)]  # type: ignore[arg-type]
        bound = self._bound.get(len(tensors[0]))
        places = [tensor.data_ptr() for tensor in tensors]
        if bound is None or bound.places != places:
            bound = self._bind(opened, tensors, places)
        bound.run()
        return bound.outs

    def _followed(self, given: Inputs) -> Opened:
        found = self._opened = self._owner.opened(self._network, given, look=self._look)
        self._look = False
        self._unbind(found)
        return found

    def _unbind(self, opened: Opened) -> None:
        """Lets go of sessions that a network has no more."""
        if opened.sessions is not self._sessions:
            self._sessions = opened.sessions
            self._bound.clear()

    def _bind(self, opened: Opened, tensors: list[Tensor], places: list[int]) -> Bound:
        count = len(tensors[0])
        session = self._owner.session(opened, count)
        self._unbind(opened)  # where it turned out to be too coarse
        before = self._bound.get(count)
        outs = opened.outs(count) if before is None else before.outs
        bound = self._bound[count] = Bound(places, tensors, outs, session.bound(tensors, outs))
        return bound


class Provided(Stages):
    """The stages of a batch, whose calls of the network are another runtime's."""

    _calls: Calls | None = None

    def __init__(self, network: ScoreNetwork | None, owner: Owner, buffers: Buffers) -> None:
        if network is not None and not differentiates(network):
            self._calls = Calls(network, owner)
        super().__init__(network, buffers, owner.backend)

    @property
    def bytes(self) -> int:  # type: ignore[override]
        return 0 if self._calls is None else self._calls.bytes

    @property
    def calling(self) -> Callable[..., Sequence[Tensor]] | None:
        return self.network if self._calls is None else self._calls

    def _bind(self, traced: Callable[[str, Any], Any]) -> None:
        super()._bind(traced)
        if self._calls is not None:
            self._call = traced("network", self._calls)

    def forget(self) -> None:
        if self._calls is not None:
            self._calls.release()

    def renew(self) -> None:
        if self._calls is not None:
            self._calls.renew()

    def size(self, count: int) -> int:
        """The bucket of a call: padded entries are computed, and no sample reads them."""
        if self._calls is None:
            return super().size(count)
        return min(bucket(super().size(count)), self.buffers.capacity.room) if count else 0
