"""The network that a Sampler runs: the user's, or one made from it that follows its changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn

from ..accelerate.accelerated_copy import Example, accelerated_copy, check
from ..accelerate.form import Form
from ..accelerate.handle import Accelerated, accelerated
from ..backends.checksum import checksums
from ..networks.compiled import Compiled, compiled
from ..networks.contents import Contents
from ..networks.network import ScoreNetwork
from ..networks.placement import evaluating
from ..networks.wrapper import unwrapped


class Derived:
    """A network made from the user's: in another dtype or on another device, accelerated, compiled.

    own      the user's
    place    makes it one of a dtype on a device: itself, or one with a copy of its module
    example  to accelerate it with, or None
    device   to compile it for, or None
    network  what runs

    It is accelerated when it is first known how large its calls are. `follow` takes over what the user has
    changed since. Threads may share it; a copy by deepcopy or pickle follows its own.
    """

    def __init__(
        self, own: ScoreNetwork, place: Callable[[ScoreNetwork], ScoreNetwork],
        example: Example | None = None, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        self.own, self.place, self.example, self.device = own, place, example, device
        self._lock = RLock()
        self._contents: Contents | None = None
        self._watched: list[Tensor] = []
        self._sums: list[int] = []
        self.network = self._placed = own
        self._entries = 0  # of the calls that it was accelerated for
        if example is not None:
            check(own)
        with evaluating(own.module, unwrapped(own.module)):
            self._make(None)

    @property
    def accelerated(self) -> Accelerated | None:
        """What was done to the network, where it is accelerated."""
        module = unwrapped(self.network.module, Compiled)
        return accelerated(module) if isinstance(module, nn.Module) else None

    def follow(self, entries: int = 0) -> ScoreNetwork:
        """The network to run now. Raises ValueError where what the user's became cannot be accelerated.

        entries  of the coming calls, where that is known
        """
        module = self.own.module
        waits = self.example is not None and not self._entries
        plain = self.network is self.own and not isinstance(module, Compiled)
        if plain and not waits and not self.accelerated:
            return self.own
        with self._lock, evaluating(module, unwrapped(module)):
            if self._follows and self._contents is None:
                self._contents = Contents.of(self.own.module)  # type: ignore[arg-type]
            if self._contents is not None and not self._contents.same():
                self._make(self.accelerated)
            elif self._watched and (now := checksums(self._watched)) != self._sums:
                self._take_values(now)
            if waits and entries and not self._entries:
                self.network = self._formed(self._placed, None, entries)
                self._entries = entries
            if isinstance(self.network.module, Compiled):
                self.network.module.renew()
            if (done := self.accelerated) is not None:
                done.refresh()
            return self.network

    def told(self, form: Form) -> None:
        """The form to accelerate the network in, where it is not accelerated yet."""
        with self._lock:
            if self.example is not None and not self._entries:
                self.example = replace(self.example, form=form)

    def release(self) -> None:
        """What runs was given weights: where they are a copy's, it follows the user's no more."""
        with self._lock:
            if self._placed is not self.own:
                self._follows, self._contents, self._watched = False, None, []

    def _make(self, before: Accelerated | None) -> None:
        """before  what was done to the network so far"""
        module: Any = self.own.module
        contents = Contents.of(module) if isinstance(module, nn.Module) else None
        placed = self.place(self.own)
        watched = [] if contents is None else contents.tensors()
        if placed is self.own and contents is not None:
            shared = {id(t) for t in _weights(module)}
            watched = [t for t in watched if id(t) not in shared]
        sums = checksums(watched)
        self.network = self._formed(placed, before, self._entries)
        fuses = self.example is not None and accelerated(module) is None
        self._placed = placed
        self._follows = contents is not None and (fuses or placed is not self.own)
        self._contents, self._watched, self._sums = None, [], []
        if self._follows:
            self._contents, self._watched, self._sums = contents, watched, sums

    def _formed(
        self, network: ScoreNetwork, before: Accelerated | None, entries: int
    ) -> ScoreNetwork:
        """A network that was placed, accelerated for calls of so many entries, and compiled."""
        if self.example is not None and entries:
            network = accelerated_copy(network, self.example, entries, before)
        return network if self.device is None else compiled(network, self.device)

    def _take_values(self, now: list[int]) -> None:
        """Copies the weights that changed into the copy in place, where captured graphs see them."""
        own, copies = _weights(self.own.module), _weights(self._placed.module)
        known = {id(t): other for t, other in zip(own, copies, strict=True)}
        changed = [t for t, a, b in zip(self._watched, now, self._sums, strict=True) if a != b]
        if self._placed is self.own or not all(id(t) in known for t in changed):
            self._make(self.accelerated)
            return
        with torch.no_grad():
            for tensor in changed:
                known[id(tensor)].copy_(tensor)
        self._sums = now

    def __getstate__(self) -> dict[str, Any]:
        """What runs is up to date in a copy; which modules it was made from is looked at anew there."""
        with self._lock:
            self.follow()
            return vars(self) | {"_lock": None, "_contents": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = RLock()


def _weights(module: Any) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
