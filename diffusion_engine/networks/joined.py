"""Several networks as one, whose condition says which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import torch
from torch import Tensor, nn

from .. import checks
from .network import Condition, ScoreNetwork, gathered

KEY = "network"  # the name of the number among a condition's
OWN = {"name", "classes", "unconditional", "clip", "grid"}  # in which joined networks may differ


class Joined(nn.Module):
    """Calls each network with its own entries of the batch. An entry that names none comes out as NaN."""

    def __init__(self, networks: Sequence[ScoreNetwork]) -> None:
        super().__init__()
        self.networks = tuple(networks)
        # Weights move with this module; a plain function has none.
        own = {str(i): n.module for i, n in enumerate(networks) if isinstance(n.module, nn.Module)}
        self.modules_of = nn.ModuleDict(own)

    def forward(
        self, x: Tensor, label: Tensor, *unnamed: Condition, **named: Tensor
    ) -> tuple[Tensor, ...]:
        which, condition = self._parted(unnamed, named)
        outs: list[Tensor] = []
        for i, network in enumerate(self.networks):
            mine = (which == i).nonzero()[:, 0]
            if not len(mine):
                continue
            made = network(x[mine], label[mine], _entries(condition, mine))
            outs = outs or [
                torch.full((len(x), *out.shape[1:]), torch.nan, dtype=out.dtype, device=out.device)
                for out in made
            ]
            for whole, part in zip(outs, made, strict=True):
                whole[mine] = part
        return tuple(outs) or (torch.full_like(x, torch.nan),)

    def _parted(
        self, unnamed: tuple[Condition, ...], named: dict[str, Tensor]
    ) -> tuple[Tensor, Condition | None]:
        """The numbers of the networks, and what these are told beside."""
        if KEY in named:
            rest = {name: tensor for name, tensor in named.items() if name != KEY}
            return named[KEY], gathered(unnamed[0] if unnamed else None, rest)
        if not unnamed or named:
            raise ValueError(
                f"joined networks are told which: give condition=0 for the first, or the number as {KEY!r} "
                f"in a mapping, beside what the networks are told; got the names {sorted(named)}"
            )
        (which,) = unnamed
        assert isinstance(which, Tensor)
        return which, None


def _entries(condition: Condition | None, mine: Tensor) -> Condition | None:
    if isinstance(condition, Mapping):
        return {name: tensor[mine] for name, tensor in condition.items()}
    return None if condition is None else condition[mine]


def joined(networks: Sequence[ScoreNetwork], name: str | None = None) -> ScoreNetwork:
    """Several networks as one of as many classes: its condition is the number of the network that is called.

    networks  of one process and shape, which predict the same and are told the same label
    name      for recipes; theirs joined by "+" where there is none

    condition=i samples from network i; compose=[(0, 1.0), (1, 1.0)] from the product of 0 and 1 (their scores
    are summed), a negative weight takes a network away. Networks that have conditions of their own get them
    beside the number, in a mapping: {"network": [0, 1], "": classes}, "" being the tensor without a name.
    Each network is called with its own entries of a batch, so that two cost what two calls do.

    Raises ValueError where they do not go together.
    """
    given = checks.entries("networks", networks, "give two ScoreNetworks or more")
    if len(given) < 2 or not all(isinstance(network, ScoreNetwork) for network in given):
        raise ValueError(f"networks={checks.said(given)}: give two ScoreNetworks or more")
    first = given[0]
    for i, other in enumerate(given[1:], 1):
        if differs := sorted(_differences(first, other)):
            raise ValueError(
                f"networks 0 and {i} differ in {', '.join(differs)}: joined networks share a plan, so that "
                "all take the same label and predict the same of one process and shape"
            )
    bare = all(n.classes is None and n.null is None for n in given)
    module = Joined(given)
    module.train(any(getattr(n.module, "training", False) for n in given))
    return first.with_module(
        module,
        name=name or "+".join(network.name for network in given),
        classes=len(given) if bare else None,
        null=None,
        inference=all(network.inference for network in given),
    )


def _differences(one: ScoreNetwork, other: ScoreNetwork) -> list[str]:
    """In what two networks differ that plans or calls are made of."""
    a, b = one.parameterisation, other.parameterisation
    found = [
        f.name for f in fields(a) if f.name not in OWN and getattr(a, f.name) != getattr(b, f.name)
    ]
    calls = ("label_dtype", "memory_format", "scale_input")
    return found + [name for name in calls if getattr(one, name) != getattr(other, name)]
