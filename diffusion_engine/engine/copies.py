"""`Copies`: the weights of a placed network, which leave its device when another needs the room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..accelerate.handle import Accelerated, accelerated
from ..networks.compiled import Compiled
from ..networks.network import ScoreNetwork
from ..networks.wrapper import unwrapped


class Copies:
    """What stays is the module: its fused ops, what it was compiled to, and its buffers' shapes and strides.

    own      the user's network, whose weights the placed one has
    network  the placed one, on copies of them or on the very same, which then stay
    loaded   whether they are in place
    """

    def __init__(self, own: ScoreNetwork, network: ScoreNetwork) -> None:
        self.network, self.loaded = network, True
        pairs = zip(tensors(network.module), tensors(own.module), strict=True)
        self._copies = [(mine, given) for mine, given in pairs if mine is not given]
        self._strides = [(mine.shape, mine.stride()) for mine, _ in self._copies]
        self._updated = False

    @property
    def bytes(self) -> int:
        """Of the copies, and of the forms in which fused ops keep weights."""
        return sum(mine.nbytes for mine, _ in self._copies) + packed_bytes(self.network)

    def load(self) -> None:
        """Brings them back: the user's, or those that `update` gave."""
        for (mine, given), (shape, stride) in zip(self._copies, self._strides, strict=True):
            made = torch.empty_strided(shape, stride, dtype=mine.dtype, device=mine.device)
            mine.data = made.copy_(given)
        self.loaded = True

    def unload(self) -> None:
        """Lets go of them; values that are nobody else's are kept on the host."""
        kept = []
        for mine, given in self._copies:
            kept.append((mine, mine.detach().to("cpu", copy=True) if self._updated else given))
            mine.data = mine.data.new_empty(0)
        self._copies, self._updated = kept, False
        if (done := handle_of(self.network)) is not None:
            done.release()
        self.loaded = False

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Puts others in, in place."""
        unwrapped(self.network.module).load_state_dict(weights)
        self._updated = True
        if (done := handle_of(self.network)) is not None:
            done.refresh()


def tensors(module: Any) -> Iterator[Tensor]:
    """The parameters and buffers of a torch.nn.Module; nothing of another callable."""
    if isinstance(module, nn.Module):
        yield from module.parameters()
        yield from module.buffers()


def handle_of(network: ScoreNetwork) -> Accelerated | None:
    """What was done to a network that is accelerated."""
    module = unwrapped(network.module, Compiled)
    return accelerated(module) if isinstance(module, nn.Module) else None


def packed_bytes(network: ScoreNetwork) -> int:
    """Of the forms in which fused ops keep weights."""
    done = handle_of(network)
    return 0 if done is None else done.bytes
