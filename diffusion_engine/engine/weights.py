"""`Weights`: those that a served network runs on: its own, those of its adapters, and those it was given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..networks.contents import check_weights
from ..networks.network import ScoreNetwork
from ..networks.placement import moved_bytes
from ..networks.wrapper import unwrapped
from ..sampler.place import Place
from .adapted import Adapted
from .adapter import Adapter, adapter
from .copies import Copies


class Weights:
    """Adapters come and go by any thread; all else of a placed network is the engine's thread's alone.

    own       the user's network
    place     where it runs, and in what
    load_s    seconds that the weights took to come back, smoothed; 0 where they never did
    switch_s  seconds from one adapter to another
    """

    def __init__(self, own: ScoreNetwork, place: Place) -> None:
        self.own = own
        self._dtype, self._device = place.input_dtype, place.device
        self.load_s = self.switch_s = 0.0
        self._copies: Copies | None = None
        self._adapted: Adapted | None = None
        self._adapters: dict[str, Adapter] = {}
        self._given: Mapping[str, Tensor] | None = None  # until they can be put in
        self._lock = Lock()

    @property
    def fresh(self) -> bool:
        """Whether the network was never placed."""
        return self._copies is None

    @property
    def placed(self) -> bool:
        """Whether the weights are where they run."""
        return self._copies is not None and self._copies.loaded

    @property
    def size(self) -> int:
        """Bytes of the weights that are copied to where they run."""
        return moved_bytes(self.own, self._dtype, self._device)

    @property
    def missing(self) -> int:
        """Bytes that it takes to have them in place."""
        return 0 if self.placed else self.size

    @property
    def held(self) -> int:
        """Bytes of weights that are copies, and of its adapters'."""
        return sum(one.bytes for one in (self._copies, self._adapted) if one is not None)

    def settle(self, network: ScoreNetwork) -> None:
        """The network was placed."""
        self._copies = Copies(self.own, network)

    def under(self, chosen: Adapter | None) -> ScoreNetwork:
        """What runs with an adapter."""
        assert self._copies is not None
        if chosen is None:
            return self._copies.network
        if self._adapted is None:
            self._adapted = Adapted(self._copies.network)
        return self._adapted.network

    def cost(self, chosen: Adapter | None) -> float:
        """Seconds until the weights of an adapter are in place."""
        loading = 0.0 if self.placed else self.load_s
        return loading + (self.switch_s if self.switches(chosen) else 0.0)

    def switches(self, chosen: Adapter | None) -> bool:
        """Whether other weights have to be put in."""
        return chosen is not None and (self._adapted is None or self._adapted.on is not chosen)

    def load(self) -> float:
        """Puts the weights in place; the seconds that it took."""
        assert self._copies is not None
        took = self._timed(self._copies.load)
        self.load_s = _smoothed(self.load_s, took)
        return took

    def switch(self, chosen: Adapter | None) -> float:
        """Puts an adapter's weights in; the seconds that it took."""
        assert self._adapted is not None and chosen is not None
        took = self._timed(partial(self._adapted.switch, chosen))
        self.switch_s = _smoothed(self.switch_s, took)
        return took

    def start(self) -> None:
        """Puts in what `update_weights` gave before the network was placed."""
        given, self._given = self._given, None
        if given is not None:
            self.update(given)

    def unload(self) -> None:
        """Takes the weights away; they come back as they are."""
        assert self._copies is not None
        self._copies.unload()
        if self._adapted is not None:
            self._adapted.unload()

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """As Sampler.update_weights, of what adapters are added to. Waits until the network is in place."""
        check_weights(unwrapped(self.own.module), weights)
        if not self.placed:
            self._given = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
            return
        assert self._copies is not None
        self._copies.update(weights)
        if self._adapted is not None:
            self._adapted.on = None

    def add_adapter(self, name: str, deltas: Any) -> None:
        """For requests from now on, in place of one of that name."""
        if not isinstance(name, str) or not name:
            raise ValueError(f"adapter={checks.said(name)}: give it a name")
        made = adapter(name, deltas, self.own)
        with self._lock:
            self._adapters = {**self._adapters, name: made}

    def remove_adapter(self, name: str) -> None:
        """Requests that came with it keep it."""
        with self._lock:
            self.named(name)
            self._adapters = {n: kept for n, kept in self._adapters.items() if n != name}

    def named(self, name: str) -> Adapter:
        """The adapter of a name. Raises ValueError where there is none."""
        if not isinstance(name, str) or name not in self._adapters:
            known = ", ".join(map(repr, self._adapters)) or "none: add_adapter(name, deltas) first"
            raise ValueError(f"adapter={checks.said(name)}: the network has {known}")
        return self._adapters[name]

    def takes(self, chosen: Adapter | None) -> bool:
        """Whether requests can still come with an adapter."""
        return chosen is None or self._adapters.get(chosen.name) is chosen

    def drop(self) -> None:
        """Lets go of them."""
        self._copies = self._adapted = self._given = None

    def _timed(self, work: Callable[[], Any]) -> float:
        """Seconds of the host and the device."""
        began = time.perf_counter()
        work()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - began


def _smoothed(before: float, took: float) -> float:
    return 0.5 * (before + took) if before else took
