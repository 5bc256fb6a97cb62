"""The native executor: a network's call is a recorded list of operations, replayed on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..checks import flag
from ..executors.batch import Batch, plain
from ..executors.buffers import Inputs
from ..executors.capacity import Capacity, kind_of
from ..networks.network import ScoreNetwork
from .computing import Computing
from .pools import Pools
from .stages import Recorded, Replay, differentiates

if TYPE_CHECKING:
    from .program import Program
    from .recording import Recording
    from .shown import Shown

FLOAT32 = "Use dtype=torch.float32, or dtype='auto', which takes float32 where it has to"

T = TypeVar("T")


class NativeError(ValueError):
    """A network cannot be recorded; its text says why."""


class Native(Computing["Recording"]):
    """Records a network once and replays it, without torch, in float32 or bfloat16 on the CPU.

    A sample's bits depend on nothing beside it: not on the size of the call, its place there or the number
    of threads. Operations that torch does (`print(sampler.recording)` marks them) keep that as far as torch
    does.

    backend  of the step: "auto", "torch" or "cpp"
    threads  that replay: a number, or a mapping of the entries of a call to one. Where none is said, how many
             are the fastest is measured for each network and number of entries, and kept under the user's
             cache folder
    dtype    torch.float32; or torch.bfloat16, to which convolutions, linear layers and attention round their
             inputs and weights: their sums, and all else, are float32
    fallback whether a network that bfloat16 is too coarse for is done in float32; it is refused otherwise

    Networks that differentiate in their forward, for a classifier's gradient or an exact derivative, are
    called as the eager executor does. Weights that have changed, by whatever way, are noticed before a run,
    and those written to by torch before each call; a module of other parts is recorded again. Of what a
    callable that is no torch.nn.Module reads, the tensors are watched.
    """

    invariant = True

    def __init__(
        self,
        backend: str = "auto",
        threads: int | Mapping[int, int] | str | None = None,
        dtype: torch.dtype = torch.float32,
        fallback: bool = False,
    ) -> None:
        super().__init__("the native executor", backend, threads)
        if dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(
                f"dtype={dtype!r}: the native executor runs in torch.float32 or torch.bfloat16"
            )
        self.precision = torch.bfloat16 if dtype == torch.bfloat16 else None
        self.fallback = flag("fallback", fallback)
        # Networks in float32 though bf16 was asked for, and why: whatever their weights become.
        self._plain: WeakKeyDictionary[ScoreNetwork, str] = WeakKeyDictionary()

    def __reduce__(self) -> tuple:
        """A copy, here or in another process, records anew."""
        how: dict[str, Any] = {"dtype": self.precision or torch.float32, "fallback": self.fallback}
        return partial(Native, threads=self.threads, **how), (self.backend,)

    def objection(self, device: torch.device) -> str | None:
        if device.type != "cpu":
            return (
                f"the native executor runs on the CPU, not on {device}; use executor='graph' there"
            )
        reason = missing()
        if reason is None and self.precision and not halves():
            from ..backends.machine import emulated

            return emulated(f"the native executor in {self.precision}")
        return reason

    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        if capacity.state_dtype == torch.float64 or capacity.dtype != torch.float32:
            raise NativeError(
                f"the native executor runs in float32 and this network in {capacity.dtype}; use "
                "executor='eager'"
            )
        if network is not None:
            self._allows(network)
        with plain():
            return Batch(capacity, partial(Recorded, network, self))

    def calling(self, network: ScoreNetwork) -> Callable[..., Sequence[Tensor]]:
        self._allows(network)
        return super().calling(network) if differentiates(network) else Replay(network, self)

    def _allows(self, network: ScoreNetwork) -> None:
        """Raises NativeError where a network does not run in bf16, and has to."""
        if self.precision is None or self.fallback:
            return
        if differentiates(network):
            raise NativeError(
                f"the network {network.name!r} differentiates in its forward, which torch does in float32: "
                f"it does not run in bf16. {FLOAT32}"
            )

    def exact(self, network: ScoreNetwork, given: Inputs) -> bool:
        if differentiates(network):
            return False
        with plain():
            return self._packing(self.recording(network, given), lambda recording: recording.exact)

    def form(self, network: ScoreNetwork) -> str | None:
        from ..backends.native import loaded

        if differentiates(network):
            return None
        half = halves() if self.dtype_of(network) == torch.bfloat16 else ""
        return "/".join(["native", loaded("_cpu").isa(), *filter(None, [half])])

    def dtype_of(self, network: ScoreNetwork) -> torch.dtype | None:
        """In what a network's products are done: float32 where bf16 was too coarse."""
        plain = differentiates(network) or network in self._plain
        return torch.float32 if self.precision and plain else self.precision

    def recorded(self, network: ScoreNetwork) -> Shown:
        """What was recorded of a network so far; print it."""
        from .shown import Shown

        return Shown(network, self.made(network), self.dtype_of(network), self._plain.get(network))

    def recording(self, network: ScoreNetwork, given: Inputs, look: bool = False) -> Recording:
        """What a network was recorded as, for calls like the given one, now where it was not. Raises
        NativeError.

        look  whether it is held against the module, in whatever way that was changed
        """
        from .lower import Refused
        from .recording import Recording

        half = halves() if self.precision else ""
        key = (network, *kinds(given), half)
        found = self._made.get(key)
        if found is not None and not look and not found.written():
            return found
        with self._locks.of(key):
            found = self._made.get(key)
            if found is not None and not found.same():
                self._made.take(key)
                found = None
            if found is not None:
                found.follow()
                return found
            try:
                done = "" if network in self._plain else half
                found = Recording(network, given, Pools(self.threads), done)
            except Refused as refused:
                raise NativeError(refusal(network, refused)) from refused
            self._made.put(key, found, found.bytes)
            return found

    def program(self, recording: Recording, count: int) -> Program:
        """A call on memory of its own. Raises NativeError.

        count  its entries
        """
        return self._packing(recording, lambda one: one.program(count))

    def _packing(self, recording: Recording, make: Callable[[Recording], T]) -> T:
        """What is made of a recording, whose weights are packed then."""
        from .held import Beyond
        from .lower import Refused

        try:
            try:
                made = make(recording)
            except Beyond as beyond:
                if not self.fallback:
                    raise
                self._plain[recording.network] = str(beyond)
                for one in self.made(recording.network):
                    one.in_float32()
                made = make(recording)
        except Refused as refused:
            raise NativeError(refusal(recording.network, refused)) from refused
        self._weighed(recording)
        return made


def missing() -> str | None:
    """Why nothing can be replayed here, as a sentence; None where it can."""
    from ..backends.native import loaded

    try:
        loaded("_cpu")
    except ImportError as error:
        return f"the compiled module _cpu is missing ({error}); use executor='eager'"
    return None


def halves() -> str:
    """What does products in bf16 here; nothing where the processor would emulate it."""
    from ..backends.native import loaded

    return str(loaded("_cpu").bf16())


def kinds(given: Inputs) -> tuple:
    """What calls have in common that one recording serves."""
    x, label, condition, *others = given
    one = None if condition is None else kind_of(condition)
    parts = tuple(None if t is None else (tuple(t.shape[1:]), t.dtype) for t in (x, label, *others))
    return parts, one and _without_batch(one)


def _without_batch(kind: Any) -> tuple:
    return tuple((name, shape[1:], dtype) for name, shape, dtype in kind)


def refusal(network: ScoreNetwork, reason: Exception) -> str:
    from .held import Beyond

    if isinstance(reason, Beyond):
        return f"the network {network.name!r} cannot be done in bf16: {reason}. {FLOAT32}"
    return f"the network {network.name!r} cannot be recorded: {reason}. Use executor='eager'"
