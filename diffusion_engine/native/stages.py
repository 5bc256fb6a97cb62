"""The stages of a batch whose network is replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from torch import Tensor

from ..backends.step import Bound
from ..executors.buffers import Buffers, Inputs
from ..executors.packing import bucket
from ..executors.stages import Stages
from ..networks.network import ScoreNetwork

if TYPE_CHECKING:
    from .packed import Packed
    from .program import Program
    from .recording import Recording


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


@dataclass(eq=False)
class Calls:
    """What replays a network with weights as they were.

    programs  by the entries of a call
    rows      the same over a batch's buffers with the step behind them
    """

    programs: dict[int, Program] = field(default_factory=dict)
    rows: dict[int, Callable[[], object]] = field(default_factory=dict)


class Replay:
    """A network as a function of its inputs: programs on memory of its own, which the next call overwrites.

    Weights that torch wrote to are seen before each call; `renew` has the next one look at all else.
    """

    def __init__(self, network: ScoreNetwork, owner: Owner) -> None:
        self._network, self._owner = network, owner
        self._recording: Recording | None = None
        self._kept: WeakKeyDictionary[Packed, Calls] = WeakKeyDictionary()
        self._packed: Packed | None = None  # the weights of the last call
        self._current = Calls()  # and what replays them
        self._look = True

    @property
    def bytes(self) -> int:
        made = [p for calls in list(self._kept.values()) for p in list(calls.programs.values())]
        return sum(program.bytes for program in made)

    def renew(self) -> None:
        """The module may be another one."""
        self._look = True

    def release(self) -> None:
        """Lets go of programs, and of the weights that they read."""
        self._kept.clear()
        self._current, self._packed = Calls(), None
        if self._recording is not None:
            self._recording.release()
        self._look = True

    def __call__(self, *given: Any) -> Sequence[Tensor]:
        from .called import taken_apart

        calls = self.calls(given)  # type: ignore[arg-type]
        tensors = [tensor.contiguous() for tensor in taken_apart(given)]  # type: ignore[arg-type]
        outs: Sequence[Tensor] = self.program(calls, len(tensors[0]))(tensors)
        return outs

    def calls(self, given: Inputs) -> Calls:
        """What replays the network as it is now, with inputs like these."""
        recording = self._recording
        if self._look or recording is None or recording.written():
            recording = self._followed(given)
        if recording.packed is not self._packed:
            self._packed = recording.packed
            self._current = self._kept.setdefault(self._packed, Calls())
        return self._current

    def program(self, calls: Calls, count: int) -> Program:
        """A call of so many entries."""
        made = calls.programs.get(count)
        if made is None:
            assert self._recording is not None
            made = calls.programs[count] = self._owner.program(self._recording, count)
        return made

    def _followed(self, given: Inputs) -> Recording:
        found = self._owner.recording(self._network, given, look=self._look)
        if found is not self._recording:
            self._kept.clear()
        self._recording, self._look = found, False
        return found


class Recorded(Stages):
    """The stages of a batch, whose calls of the network are replayed, with the step behind them."""

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
        # The step goes behind the network where nothing is drawn between, and nobody wants ranges of both.
        alone = self._call is self._replay and self.step is self._launch
        self._behind = self._launch.behind if alone and isinstance(self._launch, Bound) else None

    def __call__(self, count: int, most: int) -> None:
        if not count or self._replay is None or self._behind is None:
            super().__call__(count, most)
            return
        count = self.size(count)
        given = self.buffers.inputs(count)
        calls = self._replay.calls(given)
        row = calls.rows.get(count)
        if row is None:
            row = calls.rows[count] = self._row(self._replay.program(calls, count), given)
        self.fill(count)
        row()

    def _row(self, program: Program, given: Inputs) -> Callable[[], object]:
        """A call of these inputs and the step, which are one where nothing has to be copied for either."""
        from .called import taken_apart

        assert self._behind is not None and self._replay is not None
        inputs, behind = taken_apart(given), self._behind(program.outputs)
        if behind is None or not all(tensor.is_contiguous() for tensor in inputs):
            network, step = self._replay, self._launch
            return lambda: step(network(*given))
        return program.then(inputs, behind)

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
