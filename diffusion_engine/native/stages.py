"""The stages of a batch whose network is replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from torch import Tensor

from ..executors.buffers import Buffers, Inputs
from ..executors.packing import bucket
from ..executors.stages import Stages
from ..networks.network import ScoreNetwork

if TYPE_CHECKING:
    from .program import Program
    from .recording import Packed, Recording


class Owner(Protocol):
    """Records for batches, with the memory of all of them in view: a `Native`."""

    backend: str

    def recording(self, network: ScoreNetwork, given: Inputs, look: bool = False) -> Recording:
        """What a network was recorded as."""

    def program(self, recording: Recording, count: int) -> Program:
        """A call of so many entries."""


def differentiates(network: ScoreNetwork) -> bool:
    """Whether its forward does, for a classifier's gradient or an exact derivative: torch runs it then."""
    rule = network.parameterisation
    return rule.derivative is not None or rule.gradient is not None


class Replay:
    """A network as a function of its inputs: programs on memory of its own, which the next call overwrites.

    Weights that torch wrote to are seen before each call; `renew` has the next one look at all else.
    """

    def __init__(self, network: ScoreNetwork, owner: Owner) -> None:
        self._network, self._owner = network, owner
        self._recording: Recording | None = None
        self._programs: WeakKeyDictionary[Packed, dict[int, Program]] = WeakKeyDictionary()
        self._packed: Packed | None = None  # the weights of the last call
        self._current: dict[int, Program] = {}  # and their programs
        self._look = True

    @property
    def bytes(self) -> int:
        made = [
            program for kept in list(self._programs.values()) for program in list(kept.values())
        ]
        return sum(program.bytes for program in made)

    def renew(self) -> None:
        """The module may be another one."""
        self._look = True

    def release(self) -> None:
        """Lets go of programs, and of the weights that they read."""
        self._programs.clear()
        self._current, self._packed = {}, None
        if self._recording is not None:
            self._recording.release()
        self._look = True

    def __call__(self, *given: Any) -> Sequence[Tensor]:
        from .recording import taken_apart

        recording = self._recording
        if self._look or recording is None or recording.written():
            recording = self._followed(given)  # type: ignore[arg-type]
        if recording.packed is not self._packed:
            self._packed = recording.packed
            self._current = self._programs.setdefault(self._packed, {})
        tensors = [tensor.contiguous() for tensor in taken_apart(given)]  # type: ignore[arg-type]
        count = len(tensors[0])
        program = self._current.get(count)
        if program is None:
            program = self._current[count] = self._owner.program(recording, count)
        outs: Sequence[Tensor] = program(tensors)
        return outs

    def _followed(self, given: Inputs) -> Recording:
        found = self._owner.recording(self._network, given, look=self._look)
        if found is not self._recording:
            self._programs.clear()
        self._recording, self._look = found, False
        return found


class Recorded(Stages):
    """The stages of a batch, whose calls of the network are replayed."""

    _replay: Replay | None = None

    def __init__(self, network: ScoreNetwork | None, owner: Owner, buffers: Buffers) -> None:
        if network is not None and not differentiates(network):
            self._replay = Replay(network, owner)
        super().__init__(network, buffers, owner.backend)

    @property
    def bytes(self) -> int:  # type: ignore[override]
        return 0 if self._replay is None else self._replay.bytes

    @property
    def calling(self) -> Callable[..., Sequence[Tensor]] | None:
        return self.network if self._replay is None else self._replay

    def _bind(self, traced: Callable[[str, Any], Any]) -> None:
        super()._bind(traced)
        if self._replay is not None:
            self._call = traced("network", self._replay)

    def forget(self) -> None:
        if self._replay is not None:
            self._replay.release()

    def renew(self) -> None:
        if self._replay is not None:
            self._replay.renew()

    def size(self, count: int) -> int:
        """The bucket of a call: padded entries are computed, and no sample reads them."""
        if self._replay is None:
            return super().size(count)
        return min(bucket(super().size(count)), self.buffers.capacity.room) if count else 0
