"""A network's call as one of a list of tensors, and the calls that it is tried on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..executors.buffers import Inputs
from ..networks.network import ScoreNetwork

SCALES = (1.0, -0.5, 0.25)  # of the inputs that a recording is held against the module on
MEET = 4  # entries of the call in which samples meet for the first time
FLAT = torch.contiguous_format


class Called(nn.Module):
    """A network as a function of its inputs, a list of tensors."""

    def __init__(self, network: ScoreNetwork, given: Inputs) -> None:
        super().__init__()
        self.network, self.kinds = network, given
        if isinstance(network.module, nn.Module):
            self.module = network.module  # whose weights torch.export finds

    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        return self.network(*taken_up(self.kinds, tensors))


def taken_apart(given: Inputs) -> list[Tensor]:
    """The tensors of a call."""
    x, label, condition, latent, end = given
    named = condition.values() if isinstance(condition, Mapping) else [condition]
    return [t for t in (x, label, *named, latent, end) if t is not None]


def taken_up(like: Inputs, tensors: list[Tensor]) -> Inputs:
    """The call of tensors, where the others were those of `like`."""
    x, label, *rest = tensors
    condition: Any = like[2]
    if isinstance(condition, Mapping):
        condition = {name: rest.pop(0) for name in condition}
    elif condition is not None:
        condition = rest.pop(0)
    latent, end = (rest.pop(0) if t is not None else None for t in like[3:])
    return x, label, condition, latent, end


def examples(like: list[Tensor], batch: int) -> list[Tensor]:
    """The tensors of a call of so many entries: normals at different times, under conditions of different
    sizes.

    like  the tensors of a call of one entry
    """
    numbers = torch.Generator().manual_seed(0)
    given = [one.expand(batch, *one.shape[1:]).clone(memory_format=FLAT) for one in like]
    given[0] = torch.randn(given[0].shape, generator=numbers)
    for i in range(batch):
        share = i % MEET / MEET
        given[1][i].sub_((given[1][i] * share).to(given[1].dtype))
        for tensor in given[2:]:
            if tensor.is_floating_point():
                tensor[i].mul_(1 - share)
    return given
