"""The conditions of a request: whether they can be guided to, and what a recipe says of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..networks.condition import checked, prompts
from ..networks.network import Condition, ScoreNetwork
from .plans import Scale

# (condition, weight), the weight a number or one a sample
Compose = Sequence[tuple[Any, float | Sequence[float]]]
# What a recipe says of a condition, one entry a sample; None where JSON does not hold it
Labels = Sequence[Any] | None


class SamplerLike(Protocol):
    """What a request reads of the sampler that it is made to."""

    device: torch.device
    input_dtype: torch.dtype
    guidance: float | tuple[float, ...]
    interval: tuple[float, float]
    classifier_scale: float

    @property
    def network(self) -> ScoreNetwork: ...

    @property
    def state_dtype(self) -> torch.dtype: ...

    @property
    def saved(self) -> bool: ...


def labels(given: Sequence[Any], made: Sequence[Condition | None], n: int) -> tuple[Labels, ...]:
    """The classes or prompts of each condition of n samples; nothing of none, and of a null that is no class.

    made  the tensors of each
    """
    if all(one is None or (given[i] is None and not _whole(one)) for i, one in enumerate(made)):
        return ()
    return tuple(
        prompts(asked, n) or (one.tolist() if _whole(one) else None)  # type: ignore[union-attr]
        for asked, one in zip(given, made, strict=True)
    )


def _whole(condition: Condition | None) -> bool:
    return isinstance(condition, Tensor) and condition.dtype == torch.int64


def check_guided(
    sampler: SamplerLike, scales: Sequence[Scale], condition: Any, first: Any, negative: Any
) -> None:
    """Raises ValueError where there is nothing to guide to, or away from.

    scales     of guidance, or the weights of composed conditions
    condition  what is guided to; first: that, or the first of those that are composed
    """
    network = sampler.network
    guided = any(isinstance(scale, float) and scale != 1.0 for scale in scales)
    if guided and network.scale_input is None and not network.parameterisation.guide:
        if network.null is None:
            raise ValueError(
                f"guidance={max(scales):g} needs an unconditional branch and the network has none; "
                f"give ScoreNetwork its null condition, or sample with guidance=1"
            )
        if condition is None and negative is None:
            raise ValueError(
                "guidance needs a condition to guide to; give condition=, or guidance=1"
            )
    classified = network.parameterisation.gradient is not None
    if classified and sampler.classifier_scale and first is None:
        raise ValueError(
            "a classifier guides to a class; give condition=, or sample with classifier_scale=0"
        )


def negative_of(
    sampler: SamplerLike, given: Any, scales: Sequence[Scale], n: int
) -> Condition | None:
    """The condition of the unconditional branch of n samples, where it is not the network's null.

    Raises ValueError where no such branch is called.
    """
    if given is None:
        return None
    network = sampler.network
    about = network.parameterisation
    why = None
    if about.reads_scale:
        why = f"{network.name!r} reads its guidance scale, and calls no unconditional branch"
    elif about.guide:
        why = f"the second branch of {network.name!r} is its guide's, which is told the condition"
    elif about.guided or getattr(network.module, "guided", False):
        why = f"{network.name!r} follows one guided ODE, whose unconditional part is its own"
    elif network.null is None:
        why = f"{network.name!r} has no unconditional branch; give ScoreNetwork its null condition"
    elif not sampler.saved and all(scale == 1.0 for scale in scales):
        why = "guidance=1 calls no unconditional branch; give guidance= another scale, such as 4"
    elif all(isinstance(scale, tuple) and sum(scale) == 1.0 for scale in scales):
        why = "weights of sum 1 leave nothing of the unconditional branch; give others to compose="
    if why is not None:
        raise ValueError(
            f"negative= is what the unconditional branch is told in place of nothing: {why}"
        )
    return checked(network, given, n, sampler.device, sampler.input_dtype)


def composed(
    sampler: SamplerLike, compose: Compose | None, condition: Any, guidance: Any
) -> tuple[list[Any], list[float | Sequence[float]]]:
    """The conditions of a request and, where they are composed, their weights."""
    if compose is None:
        return [condition], []
    if condition is not None or guidance is not None or sampler.guidance != 1.0:
        raise ValueError(
            "compose says which conditions are followed and how much: leave condition out and guidance at 1"
        )
    if sampler.interval != (0.0, math.inf):
        raise ValueError("compose acts at all times; leave the sampler's interval out")
    if sampler.network.scale_input is not None:
        raise ValueError("a network that reads its guidance scale has no branches to compose")
    if sampler.network.parameterisation.gradient is not None and sampler.classifier_scale:
        raise ValueError(
            "compose adds the scores of conditions and a classifier guides to one class; sample with "
            "classifier_scale=0"
        )
    if getattr(sampler.network.module, "guided", False):
        raise ValueError(
            "this network's derivative is that of one guided ODE, which no composition follows; compose with "
            "exact_derivative of the unguided network"
        )
    listed = compose if isinstance(compose, (tuple, list)) else ()
    pairs = [tuple(pair) if isinstance(pair, (tuple, list)) else () for pair in listed]
    if not pairs or any(len(pair) != 2 or pair[0] is None for pair in pairs):
        raise ValueError(
            f"compose={compose!r}: give (condition, weight) pairs, as [(3, 1.0), (5, -0.5)]"
        )
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
