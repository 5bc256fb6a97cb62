"""`Adapted`: a network whose weights are those of another and of one of its adapters."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ..networks.network import ScoreNetwork
from ..networks.wrapper import unwrapped
from .adapter import Adapter
from .copies import handle_of, packed_bytes, tensors


class Adapted:
    """A network over the weights of another, but for those that adapters change: these are its own, and are
    switched in place, where captured graphs see them. The other network stays as it is.

    network  what runs
    on       whose weights it has now, None before the first and after the other network's were changed
    """

    def __init__(self, base: ScoreNetwork) -> None:
        self._base = base.module
        shared = {id(t): t for t in tensors(base.module)}
        try:
            made: Any = copy.deepcopy(base.module, shared)
        except Exception as error:
            raise ValueError(
                f"adapters run on a copy of the module, over its weights, and it cannot be copied: {error}"
            ) from error
        self._made, self.network = made, base.with_module(made)
        self.on: Adapter | None = None
        self._mine: dict[str, nn.Parameter] = {}

    @property
    def bytes(self) -> int:
        """Of the weights that are its own, and of their packed forms."""
        return sum(t.nbytes for t in list(self._mine.values())) + packed_bytes(self.network)

    def switch(self, to: Adapter) -> None:
        """Puts an adapter's weights in."""
        before, self.on = self.on, None
        weights = dict(unwrapped(self._base).named_parameters())
        for name in {*to.deltas, *self._mine}:
            self._own(name, weights[name])
        for name, mine in self._mine.items():
            if name in to.deltas:
                mine.copy_(to.deltas[name].added(weights[name]))
            elif before is None or name in before.deltas:
                mine.copy_(weights[name])
        if (done := handle_of(self.network)) is not None:
            done.refresh()
        self.on = to

    def unload(self) -> None:
        """Lets go of its weights; the next switch brings them back."""
        self.on = None
        for mine in self._mine.values():
            mine.data = mine.data.new_empty(0)
        if (done := handle_of(self.network)) is not None:
            done.release()

    def _own(self, name: str, weight: nn.Parameter) -> None:
        """Sees to it that a weight is its own. Steps recorded before read the other network's, whose values
        are the same for who runs them."""
        mine = self._mine.get(name)
        if mine is None:
            mine = nn.Parameter(torch.empty_like(weight), requires_grad=weight.requires_grad)
            for part in self._made.modules():
                for place, found in list(part.named_parameters("", False, False)):
                    if found is weight:
                        setattr(part, place, mine)
            self._mine[name] = mine
        elif mine.shape != weight.shape:
            mine.data = torch.empty_like(weight.data)
