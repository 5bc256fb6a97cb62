"""Adapters: deltas of a network's weights, as LoRA has them, for some requests and not for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from ..networks.network import ScoreNetwork, check_finite
from ..networks.wrapper import unwrapped

GIVE = (
    "give a tensor of the weight's shape, or (A, B) or (A, B, scale) whose product B A has its size"
)


@dataclass(frozen=True)
class Delta:
    """What is added to a weight W [out, ...]: scale B A (Hu et al. 2022, eq. 3), or D as a whole.

    down   A [r, ...], flattened to [r, in]; or D, of the shape of W
    up     B [out, r, ...], flattened to [out, r]; None with D
    scale  of the product
    """

    down: Tensor
    up: Tensor | None = None
    scale: float = 1.0

    def objection(self, weight: Tensor) -> str | None:
        """Why it cannot be added to a weight."""
        if not weight.is_floating_point() or weight.element_size() < 2:
            return f"the weight is stored as {weight.dtype}, to which nothing can be added"
        if self.up is None:
            if self.down.shape != weight.shape:
                return f"it is {list(self.down.shape)} and the weight {list(weight.shape)}"
            return None
        a, b = self.down, self.up
        if a.ndim < 2 or b.ndim < 2 or b.shape[1:].numel() != len(a):
            return f"A is {list(a.shape)} and B {list(b.shape)}; A is [r, in] and B [out, r]"
        if b.shape[:1] != weight.shape[:1] or a.shape[1:].numel() != weight.shape[1:].numel():
            return f"B A of A {list(a.shape)} and B {list(b.shape)} has not the shape {list(weight.shape)}"
        return None

    def added(self, weight: Tensor) -> Tensor:
        """W + scale B A, or W + D, in float32, or in float64 where W is; rounded once to the dtype of W."""
        device, exact = weight.device, torch.promote_types(weight.dtype, torch.float32)
        delta = self.down.to(device, exact)
        if self.up is not None:
            product = self.up.to(device, exact).flatten(1) @ delta.flatten(1)
            delta = self.scale * product.reshape(weight.shape)
        return (weight.to(exact) + delta).to(weight.dtype)


@dataclass(frozen=True, eq=False)
class Adapter:
    """Deltas by the names of parameters. Requests hold the one that they came with."""

    name: str
    deltas: Mapping[str, Delta]


def adapter(name: str, given: Any, network: ScoreNetwork) -> Adapter:
    """What a user gave, on tensors of its own. Raises ValueError where it does not suit the network."""
    said = f"adapter {name!r}"
    module = unwrapped(network.module)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{said}: {type(module).__name__} is no torch.nn.Module and has no weights"
        )
    weights = dict(module.named_parameters())
    if not isinstance(given, Mapping) or not given:
        raise ValueError(
            f"{said}: {checks.said(given)}; give a mapping of parameters' names to deltas"
        )
    if unknown := [n for n in given if n not in weights]:
        raise ValueError(
            f"{said}: {', '.join(map(repr, unknown[:4]))} is no parameter of the network"
            f"{checks.nearest(unknown, weights)}"
        )
    deltas = {name: _delta(f"{said}, {name!r}", delta) for name, delta in given.items()}
    for of, delta in deltas.items():
        if objection := delta.objection(weights[of]):
            raise ValueError(f"{said}, {of!r}: {objection}; {GIVE}")
        check_finite({f"{said}, {of}": t for t in (delta.down, delta.up) if t is not None})
    return Adapter(name, deltas)


def _delta(said: str, given: Any) -> Delta:
    """One delta on tensors that nobody else changes."""
    parts = [given] if isinstance(given, Tensor) else given
    if not isinstance(parts, Sequence) or not 1 <= len(parts) <= 3:
        raise ValueError(f"{said}: {checks.said(given)}; {GIVE}")
    tensors, scale = parts[:2], 1.0 if len(parts) < 3 else checks.number("scale", parts[2])
    if not all(isinstance(t, Tensor) and t.is_floating_point() for t in tensors):
        raise ValueError(f"{said}: {checks.said(given)}; {GIVE}")
    down, *up = (t.detach().clone() for t in tensors)
    return Delta(down, up[0] if up else None, scale)
