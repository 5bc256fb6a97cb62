"""`Opened`: a network in another runtime, at any batch size."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..choices import Kept, in_turns, structure
from ..choices.turns import EQUAL, clocked, is_count
from ..executors.buffers import Inputs
from ..executors.lru import Lru
from ..native.called import SCALES, Called, examples
from ..native.executor import kinds
from ..native.held import HALF_WITHIN, Beyond, exactly
from ..native.lower import Refused
from ..native.reference import off
from ..networks.network import ScoreNetwork
from ..networks.watched import Watched
from .export import Model, Source, exported
from .file import File
from .runtime import Runtime, Session, Setting

EACH = 8  # sizes of a call that have sessions of their own
BEFORE = 1 << 28  # bytes of weights that the network had before: adapters take turns
ROUNDS, SECONDS = (3, 15), 0.3  # of a measurement
LONG, LONGEST = 0.1, 2.0  # seconds of a call that is timed once, or not at all


class ProviderError(ValueError):
    """A network cannot be run by a provider; its text says why."""


Key = tuple[Setting, int]  # and the entries of the calls of a session, 0 of any


class Sessions:
    """Those of a network with its weights as they were.

    known  how these are known
    all    by setting and size
    held   of each size that was held against the module, whose session runs it
    """

    def __init__(self, known: Any) -> None:
        self.known = known
        self.all: Lru[Key, Session] = Lru(2 * EACH)
        self.held: dict[int, Key] = {}


class Opened:
    """A network in a runtime. Raises ProviderError where it cannot be run there.

    network   in eval mode, on the CPU in float32
    given     inputs of a call, of any number of entries
    dtype     in which it is computed
    settings  that run a call, by the number of entries
    times     seconds of a call by its setting, by the number of entries: what was measured

    One thread at a time opens sessions and looks at the weights: `lock`.
    """

    def __init__(self, network: ScoreNetwork, given: Inputs, provider: Runtime) -> None:
        self.network, self.provider, self.lock = network, provider, threading.RLock()
        with self._refusals():
            self._exported = exported(network, given)
        self._called = Called(network, given)
        self._watched = Watched(network.module, self._exported.constants)
        self.same, self.written = self._watched.same, self._watched.written
        self._about = [str(kinds(given)), structure(network.module)]
        self._outs: list[Tensor] = []  # of the last call that was held against the module
        self._begin()

    def _begin(self) -> None:
        """In the dtype that the network is computed in now: nothing that was of another holds."""
        self.dtype = self.provider.dtype_of(self.network) or torch.float32
        self.sessions = Sessions(self._watched.known())
        self._before: Lru[Any, Sessions] = Lru(BEFORE)
        about = [self.provider.form(self.network), *self._about]
        self._choices = Kept("providers", about, _is_setting)
        self.settings: dict[int, Setting] = {}
        self.times: dict[int, dict[Setting, float]] = {}

    @property
    def threads(self) -> dict[int, int]:
        """That run a call, by the number of entries."""
        return {entries: setting.threads for entries, setting in self.settings.items()}

    @property
    def bytes(self) -> int:
        """Of the weights of its sessions."""
        return self._weigh(self.sessions) + self._before.bytes

    def _weigh(self, sessions: Sessions) -> int:
        return len(sessions.all) * sum(t.nbytes for t in self._exported.constants)

    def follow(self) -> None:
        """Takes over values of weights that have changed, by whatever way."""
        with self.lock:
            if self.provider.dtype_of(self.network) not in (None, self.dtype):
                self._begin()
            known, before = self._watched.known(), self.sessions
            if known != before.known:
                self.sessions = self._before.take(known) or Sessions(known)
                self._before.put(before.known, before, self._weigh(before))

    def release(self) -> None:
        """Lets go of all sessions."""
        with self.lock:
            self.sessions, self._before = Sessions(self.sessions.known), Lru(BEFORE)

    def session(self, batch: int) -> Session:
        """What runs calls of `batch` entries, held against the module itself, in the setting that was
        measured to be the fastest."""
        with self.lock, self._refusals():
            key = self.sessions.held.get(batch)
            found = None if key is None else self.sessions.all.get(key)
            if found is not None:
                return found
            try:
                return self._made(batch)
            except Beyond as beyond:
                if not self.provider.fallback:
                    raise
                self.provider.in_float32(self.network, str(beyond))
                self._begin()
                return self._made(batch)

    def _made(self, batch: int) -> Session:
        model, size = self._exported.at(batch), self._size(batch)
        setting = self._known(batch)
        settings = self.provider.candidates(batch) if setting is None else [setting]
        given = examples(self._exported.example, batch)
        found: dict[Setting, Session] = {}
        missing = [one for one in settings if (one, size) not in self.sessions.all]
        if missing:
            with model.read() as source:
                found = {one: self._load(source, model, one, given, size) for one in missing}
        for one in settings:
            kept = self.sessions.all.get((one, size))
            if kept is not None:
                found[one] = kept
        seconds = self._hold(found[settings[-1]], given)
        if setting is None:
            setting = self._fastest(found, given, seconds)
        self.settings = {**self.settings, batch: setting}
        self.sessions.held[batch] = (setting, size)
        self.sessions.all.put((setting, size), found[setting], 1)
        return found[setting]

    def _size(self, batch: int) -> int:
        """Of the calls of the session that runs such a call; 0 where it runs those of all."""
        if not self._exported.takes(batch):
            return batch
        if not self.provider.each:
            return 0
        own = {size for _, size in self.sessions.all}
        return batch if batch in own or len(own - {0}) < EACH - 1 else 0

    def _load(
        self, source: Source, model: Model | File, setting: Setting, given: list[Tensor], size: int
    ) -> Session:
        shapes = [list(t.shape) for t in given] if size else None
        try:
            return self.provider.load(source, model, setting, shapes, self.dtype)
        except Exception as error:
            said = str(error).strip().splitlines() or [repr(error)]
            raise Refused(f"{self.provider.title} cannot open it: {said[-1]}") from error

    def _known(self, batch: int) -> Setting | None:
        """How a call is run; None where that is to be measured."""
        settings = self.provider.candidates(batch)
        if len(settings) == 1:
            return settings[0]
        found = self.settings.get(batch)
        kept = self._choices.get(batch) if found is None else None
        if kept is not None:
            found = Setting(*kept)
        return found if found in settings else None

    def _fastest(
        self, found: dict[Setting, Session], given: list[Tensor], seconds: float
    ) -> Setting:
        """The setting of the fewest threads that is as fast as the fastest, nearly."""
        if seconds > LONGEST:
            return max(found)
        batch = len(given[0])
        runs = {one: session.bound(given, self._outs) for one, session in found.items()}

        def timed(one: Setting) -> float:
            runs[one]()  # threads of the one before may spin for a while
            return clocked(runs[one])

        rounds = (1, 1) if seconds > LONG else ROUNDS
        times = self.times[batch] = in_turns(runs, timed, rounds, SECONDS)
        best = min(times.values())
        fastest = min(one for one, spent in times.items() if spent <= EQUAL * best)
        self._choices.put(batch, [fastest.threads, fastest.spinning])
        return fastest

    def _hold(self, session: Session, given: list[Tensor]) -> float:
        """Holds a session against the module; seconds of a call. Raises Refused."""
        scales = SCALES if not self.sessions.held else SCALES[:1]
        seconds = float("inf")
        for scale in scales:
            call = [scale * given[0], *given[1:]]
            with torch.no_grad():
                wanted = [out.clone() for out in self._called(call)]
            self._outs = [torch.empty(out.shape, dtype=out.dtype) for out in wanted]
            seconds = min(seconds, self._first(session, call))
            for want, got in zip(wanted, self._outs, strict=True):
                self._compare(want, got)
        return seconds

    def _first(self, session: Session, given: list[Tensor]) -> float:
        try:
            return clocked(session.bound(given, self._outs))
        except Exception as error:
            said = str(error).strip().splitlines() or [repr(error)]
            raise Refused(f"{self.provider.title} cannot run it: {said[-1]}") from error

    def _compare(self, want: Tensor, got: Tensor) -> None:
        error = off(want, got)
        if self.dtype == torch.float32:
            exactly(error)
        elif not error <= HALF_WITHIN:
            raise Beyond(
                f"in {self.dtype} its outputs differ by {error:.1e} of the largest from the module's own, "
                f"and {HALF_WITHIN} is what is taken: use dtype=torch.float32, or dtype='auto', which takes "
                "float32 where it has to"
            )

    def outs(self, batch: int) -> list[Tensor]:
        """Memory for what a call returns; a session has been held against the module."""
        return [torch.empty((batch, *out.shape[1:]), dtype=out.dtype) for out in self._outs]

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except Refused as refused:
            raise ProviderError(
                f"executor={self.provider.name!r} cannot run the network {self.network.name!r}: {refused}. "
                "Use executor='eager'"
            ) from refused


def _is_setting(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and is_count(value[0])
        and (value[1] is None or type(value[1]) is bool)
    )
