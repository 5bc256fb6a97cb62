"""A network whose calls are dealt to the processes that torchrun started."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..networks.network import ScoreNetwork
from ..networks.outputs import tensors
from ..networks.wrapper import Wrapper
from ..sampler.ranks import Ranks


class Dealt(Wrapper):
    """Makes its share of a call's entries, and has those of the others from them: every process holds all
    outputs and makes the same run. They have the bits of one process where the module's do not depend on the
    size of its batch.
    """

    def __init__(self, module: Any, ranks: Ranks) -> None:
        super().__init__(module)
        self.ranks = ranks

    def forward(self, x: Tensor, label: Tensor, *given: Tensor, **named: Tensor) -> Any:
        # Each has as many; where the last are too few they are made up for by the first entry.
        share = -(-len(x) // self.ranks.world)
        take = torch.arange(share, device=x.device) + self.ranks.rank * share
        take = take.where(take < len(x), 0)
        own = self.module(
            *(tensor[take] for tensor in (x, label, *given)),
            **{name: tensor[take] for name, tensor in named.items()},
        )
        return tuple(self.ranks.gathered(out)[: len(x)] for out in tensors(own))


def dealt(network: ScoreNetwork) -> ScoreNetwork:
    """A network that shares its calls with the other processes; itself where this one is alone."""
    ranks = Ranks.of_environment()
    if ranks.world == 1 or isinstance(network.module, Dealt):
        return network
    return network.with_module(Dealt(network.module, ranks))
