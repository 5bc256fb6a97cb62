"""The accelerated network of a Sampler: a module of its own over the user's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn

from ..network import Condition, ScoreNetwork, arguments
from .network import accelerate, accelerated


def twin(network: ScoreNetwork, label: float, condition: Condition | None) -> ScoreNetwork:
    """The network with an accelerated module; the user's module stays as it is, its weights are shared.

    label      of the example call
    condition  of the example call, for one sample

    Raises ValueError where the module is none of torch.nn, cannot be copied, or cannot be accelerated.
    """
    module = network.module
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"accelerate=True takes a network apart by its modules; "
            f"{type(module).__name__} is no torch.nn.Module"
        )
    if accelerated(module) is not None:
        return network
    weights = {id(t): t for t in (*module.parameters(), *module.buffers())}
    try:
        made = copy.deepcopy(module, weights)
    except Exception as error:
        raise ValueError(
            f"the module cannot be copied ({error}); accelerate(module, x, label) it yourself, which "
            "works in place"
        ) from error
    first = next(iter(weights.values()))
    generator = torch.Generator(first.device).manual_seed(0)
    channels, *pixel = network.shape
    shape = (1, channels * network.process.blocks, *pixel)
    x = torch.randn(shape, generator=generator, device=first.device, dtype=first.dtype)
    x = x.contiguous(memory_format=network.memory_format)
    labels = torch.full((1,), label, dtype=network.label_dtype, device=first.device)
    unnamed, named = arguments(condition)
    if network.latent:
        unnamed = (x.new_zeros(1, network.latent), *unnamed)
    accelerate(made, x, labels, *unnamed, **named)
    other = copy.copy(network)
    object.__setattr__(other, "module", made)
    return other
