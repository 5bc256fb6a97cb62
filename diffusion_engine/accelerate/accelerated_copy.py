"""The network that an accelerated Sampler runs: a copy of the user's over the same weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.network import Condition, ScoreNetwork, arguments
from .choose import batch
from .handle import Accelerated, accelerated
from .network import accelerate_as


@dataclass(frozen=True)
class Example:
    """What a network is called with to check and time its fused forms.

    label      of all samples
    condition  of one sample
    most       samples at most: as many as a run has, or as the time for a choice allows
    """

    label: float
    condition: Condition | None
    most: int
    dtype: torch.dtype
    device: torch.device

    def of(self, network: ScoreNetwork, size: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The arguments of a call for `size` samples."""
        place: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        generator = torch.Generator(self.device).manual_seed(0)
        x = torch.randn(size, *network.state_shape, generator=generator, **place)
        x = x.contiguous(memory_format=network.memory_format)
        labels = torch.full((size,), self.label, dtype=network.label_dtype, device=self.device)
        unnamed, named = arguments(self.condition)
        if latent := network.parameterisation.latent:
            unnamed = (x.new_zeros(1, latent), *unnamed)

        def many(given: Tensor) -> Tensor:
            return given.expand(size, *given.shape[1:]).contiguous()

        return (x, labels, *map(many, unnamed)), {name: many(t) for name, t in named.items()}


def accelerated_copy(
    network: ScoreNetwork, example: Example, before: Accelerated | None = None
) -> ScoreNetwork:
    """The network with an accelerated module; the user's module stays as it is, its weights are shared.

    before  what was done when it was accelerated last, whose choice is kept

    Raises ValueError where the module is none of torch.nn, cannot be copied or called, or cannot be
    accelerated.
    """
    module = network.module
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"accelerate=True takes a network apart by its modules; "
            f"{type(module).__name__} is no torch.nn.Module"
        )
    if accelerated(module) is not None:
        return network
    try:
        made = copy.deepcopy(module, {id(t): t for t in (*module.parameters(), *module.buffers())})
    except Exception as error:
        raise ValueError(
            f"the module cannot be copied ({error}); accelerate(module, x, label) it yourself, which "
            "works in place"
        ) from error
    try:
        size = _batch(made, network, example) if before is None else before.batch
    except Exception as error:
        raise ValueError(_failed(example, error)) from error
    args, kwargs = example.of(network, size)
    accelerate_as(made, before, args, kwargs)
    return network.with_module(made)


def _batch(module: nn.Module, network: ScoreNetwork, example: Example) -> int:
    def call(size: int) -> Any:
        args, kwargs = example.of(network, size)
        return partial(module, *args, **kwargs)

    with torch.no_grad():
        return batch(call, example.most, example.device)


def _failed(example: Example, error: Exception) -> str:
    """That the example call failed, and what to give."""
    said = f"accelerate=True calls the network on an example, which fails: {type(error).__name__}: {error}"
    if example.condition is not None:
        return said
    return (
        f"{said}. The example has no condition, as the ScoreNetwork names neither null nor classes: where "
        "the network needs one (text), give null=, the condition of its unconditional branch. Or accelerate "
        "the module yourself, in place, and leave accelerate=True out"
    )
