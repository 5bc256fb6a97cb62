"""`Chosen`: the executor that was chosen for a network, and what it stands on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from ..executors import Capacity, Executor
from ..executors.batch import plain
from ..networks.contents import Contents
from ..networks.network import ScoreNetwork
from . import trial
from .candidates import Candidate, said
from .choice import Choice
from .measure import Enter
from .trial import Trial

LOOK = 1.0  # seconds until a module is looked at again, which takes as long as a row of a small network


class AutoError(ValueError):
    """No executor runs a network; its text says of each why."""


class Chosen:
    """What was chosen for a network.

    choice  what was measured
    among   the candidates, as they stand there
    name    of the network's structure
    Raises AutoError where none of them can be taken.
    """

    def __init__(
        self, network: ScoreNetwork, name: str, choice: Choice, among: Sequence[Candidate]
    ) -> None:
        self.name, self.choice, self.among = name, choice, among
        self._met: set[tuple] = set()  # kinds of calls that the one that was kept has made
        module = network.module
        self._contents = Contents.of(module) if isinstance(module, nn.Module) else None
        self._looked, self._same = trial.clock(), True
        self._check()

    @property
    def candidate(self) -> Candidate:
        return self.among[self.choice.tried.index(self.choice.kept)]

    @property
    def executor(self) -> Executor:
        made = self.candidate.executor
        assert made is not None
        return made

    def same(self) -> bool:
        """Whether the module is made of what it was made of, as far as it was looked at: what runs it sees a
        change by itself, and only the times are others."""
        now = trial.clock()
        if self._contents is not None and self._same and now - self._looked >= LOOK:
            self._looked, self._same = now, self._contents.same()
        return self._same

    def met(self, capacity: Capacity) -> bool:
        """Whether calls of a capacity are known to be made."""
        return kind(capacity) in self._met

    def meets(self, capacity: Capacity) -> None:
        """They are."""
        self._met.add(kind(capacity))

    def meet(self, network: ScoreNetwork, capacity: Capacity, enter: Enter) -> None:
        """Has the one that was kept make a call of a capacity. Where it cannot, the next takes the network.

        Raises AutoError where there is none.
        """
        while self.candidate.name != "eager":  # which makes all that the module makes
            executor = self.executor
            try:
                with plain(), enter(executor, network, capacity) as batch:
                    Trial(batch, network, capacity).row()
                break
            except Exception as error:
                reason = f"a call of {capacity.room}: {said(error)}"
            self.choice = self.choice.without(self.choice.kept, reason)
            executor.forget(network)
            self._check()
        self.meets(capacity)

    def _check(self) -> None:
        if not self.choice.fits:
            each = ((one.name, one.reason) for one in self.choice.tried)
            dtype = self.choice.tried[0].dtype
            raise AutoError(nobody(f"the network {self.choice.network!r} in {dtype}", each))


def nobody(what: str, reasons: Iterable[tuple[str, str | None]]) -> str:
    """The sentence of why none of some can be taken."""
    each = "; ".join(f"{name}: {reason}" for name, reason in reasons)
    return f"no executor runs {what} here ({each}); use dtype='auto' or torch.float32"


def kind(capacity: Capacity) -> tuple:
    """What calls of a capacity have in common: the kind of their inputs, and their size."""
    c = capacity
    return (
        c.shape,
        c.inputs,
        c.dtype,
        c.label_dtype,
        c.memory_format,
        c.condition,
        c.latent,
        c.ends,
        c.room,
    )
