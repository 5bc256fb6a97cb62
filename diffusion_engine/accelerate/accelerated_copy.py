"""The network that an accelerated Sampler runs: a copy of the user's over the same weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..executors.packing import bucket
from ..networks.network import Condition, ScoreNetwork, arguments
from .choose import batch
from .compare import tensors
from .form import Form, kept
from .handle import Accelerated, accelerated
from .network import accelerate_as


@dataclass(frozen=True)
class Example:
    """What a network is called with to check and time its fused forms.

    label      of all samples
    condition  of one sample
    form       that a recipe names; None takes the fastest
    end_label  of all samples, of a network that is told where its step ends
    """

    label: float
    condition: Condition | None
    dtype: torch.dtype
    device: torch.device
    form: Form | None = None
    end_label: float | None = None

    def of(self, network: ScoreNetwork, size: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The arguments of a call for `size` samples."""
        place: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        generator = torch.Generator(self.device).manual_seed(0)
        x = torch.randn(size, *network.state_shape, generator=generator, **place)
        x = x.contiguous(memory_format=network.memory_format)
        told = [self.label] if self.end_label is None else [self.label, self.end_label]
        labels = [
            torch.full((size,), one, dtype=network.label_dtype, device=self.device) for one in told
        ]
        unnamed, named = arguments(self.condition)
        if latent := network.parameterisation.latent:
            unnamed = (x.new_zeros(1, latent), *unnamed)

        def many(given: Tensor) -> Tensor:
            return given.expand(size, *given.shape[1:]).contiguous()

        return (x, *labels, *map(many, unnamed)), {name: many(t) for name, t in named.items()}


def check(network: ScoreNetwork) -> None:
    """Raises ValueError where a network has no modules to accelerate."""
    if not isinstance(network.module, nn.Module):
        raise ValueError(
            f"accelerate=True takes a network apart by its modules; "
            f"{type(network.module).__name__} is no torch.nn.Module"
        )


def accelerated_copy(
    network: ScoreNetwork, example: Example, entries: int, before: Accelerated | None = None
) -> ScoreNetwork:
    """The network with an accelerated module; the user's module stays as it is, its weights are shared.

    entries  of the calls that it is for: what is the fastest is measured with as many, unless it is known
    before   what was done when it was accelerated last, whose choice is kept

    Raises ValueError where the module cannot be copied or called, cannot be accelerated, or has not the form
    that a recipe names.
    """
    module: Any = network.module
    if accelerated(module) is not None:
        return network
    try:
        made = copy.deepcopy(module, {id(t): t for t in (*module.parameters(), *module.buffers())})
    except Exception as error:
        raise ValueError(
            f"the module cannot be copied ({error}); accelerate(module, x, label) it yourself, which "
            "works in place"
        ) from error
    one = example.of(network, 1)
    choices, key = kept(made, list(tensors(one)), example.device), bucket(entries)
    known = example.form if before is None else before.form
    if known is None and (found := choices.get(key)) is not None:
        known = Form.parsed(found)
    try:
        size = _batch(made, network, example, entries) if known is None else 1
    except Exception as error:
        raise ValueError(_failed(example, error)) from error
    args, kwargs = example.of(network, size)
    done = accelerate_as(made, known, args, kwargs)
    if before is not None and done.chosen == before.chosen:
        done.batch, done.times = before.batch, before.times
    elif done.times:
        choices.put(key, str(done.form))
    _check_form(done, example)
    return network.with_module(made)


def _check_form(done: Accelerated, example: Example) -> None:
    wanted, made = example.form, done.form
    if wanted is not None and (wanted.name, len(wanted.tiles)) != (made.name, len(made.tiles)):
        raise ValueError(
            f"the recipe's network ran in the form {str(wanted)!r}, which this one does not have (it is "
            f"{str(made)!r}): replay it with the network that it was made with; for samples that are nearly "
            "the same, give the recipe with network_form None"
        )


def _batch(module: nn.Module, network: ScoreNetwork, example: Example, entries: int) -> int:
    def call(size: int) -> Any:
        args, kwargs = example.of(network, size)
        return partial(module, *args, **kwargs)

    with torch.no_grad():
        return batch(call, entries, example.device)


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
