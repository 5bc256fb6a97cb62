r"""Autoguidance (Karras et al. 2024, arXiv 2406.02507): a network guided by a worse version of itself.

    out = out_g(x, y) + s (out_n(x, y) - out_g(x, y))

The guide is smaller, or less trained, and given the sample's own condition: the difference points away from
the errors that both make, and guidance costs no variety.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from .. import checks
from .network import ScoreNetwork
from .outputs import tensors

KEY = "network"  # the keyword that says which: 0 the network, 1 its guide
OWN = {"name", "unconditional", "clip", "grid"}  # in which the two may differ
CALLS = ("label_dtype", "memory_format")


class Autoguided(nn.Module):
    """Two modules as one, each entry of whose batch says whose output it is.

    On a CPU each is called with its own entries. Elsewhere, and where the call is compiled, exported or
    captured, both are called with all entries and one is taken, since who has how many is not to be read
    back: a call of n guided samples then costs 2 n entries of each.
    """

    def __init__(self, network: Any, guide: Any) -> None:
        super().__init__()
        self.network, self.guide = network, guide

    def forward(self, x: Tensor, label: Tensor, *given: Tensor, **named: Tensor) -> Tensor | tuple:
        if KEY not in named:
            raise ValueError(
                f"an autoguided network is told which of two is called, as {KEY!r}: 0 or 1 of each entry"
            )
        named = dict(named)
        of_guide = named.pop(KEY) != 0
        if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.compiler.is_exporting():
            return _taken(
                of_guide,
                self._called(0, x, label, *given, **named),
                self._called(1, x, label, *given, **named),
            )
        return self._parted(of_guide, (x, label, *given), named)

    def _called(self, which: int, *given: Tensor, **named: Tensor) -> tuple[Tensor, ...]:
        return tensors((self.guide if which else self.network)(*given, **named))

    def _parted(
        self, of_guide: Tensor, given: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> tuple[Tensor, ...]:
        outs: list[Tensor] = []
        for which in (0, 1):
            mine = (of_guide == bool(which)).nonzero()[:, 0]
            if not len(mine):
                continue
            if len(mine) == len(of_guide):
                return self._called(which, *given, **named)
            made = self._called(
                which, *(t[mine] for t in given), **{name: t[mine] for name, t in named.items()}
            )
            outs = outs or [t.new_empty((len(of_guide), *t.shape[1:])) for t in made]
            _check_alike(made, outs)
            for whole, part in zip(outs, made, strict=True):
                whole[mine] = part
        return tuple(outs)


def _taken(
    of_guide: Tensor, network: tuple[Tensor, ...], guide: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The guide's output where an entry is its own, else the network's."""
    _check_alike(guide, list(network))
    return tuple(
        torch.where(of_guide.view(-1, *[1] * (a.ndim - 1)), b, a)
        for a, b in zip(network, guide, strict=True)
    )


def _check_alike(made: tuple[Tensor, ...], other: list[Tensor]) -> None:
    shapes = [[list(t.shape[1:]) for t in part] for part in (other, made)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the network returned {shapes[0]} an entry and its guide {shapes[1]}; the two return the same"
        )


def autoguidance(
    network: ScoreNetwork, guide: ScoreNetwork, name: str | None = None
) -> ScoreNetwork:
    """A network whose second branch is a guide: `guidance=s` is guide + s (network - guide).

    network  the one to sample from; s = 1 is it alone, and calls no guide
    guide    a worse one of the same process, shape, prediction, label and classes, which is given the same
             condition; its size, weights, clip and grid may be others
    name     for recipes; theirs joined by " guided by " where there is none

    `interval`, a scale a sample and the guiders are those of classifier-free guidance, which it takes the
    place of: a null condition of either is left alone. Without conditions it guides an unconditional network.
    Raises ValueError where the two do not go together.
    """
    for what, given in (("network", network), ("guide", guide)):
        if not isinstance(given, ScoreNetwork):
            raise ValueError(f"{what}={checks.said(given)}: give a ScoreNetwork")
        if why := _objection(given):
            raise ValueError(f"{what} {given.name!r} {why}")
    if differs := sorted(_differences(network, guide)):
        raise ValueError(
            f"the network and its guide differ in {', '.join(differs)}: they are branches of one row, and so "
            "take the same label and condition and predict the same of one process and shape"
        )
    module = Autoguided(network.module, guide.module)
    module.train(any(getattr(n.module, "training", False) for n in (network, guide)))
    return network.with_module(
        module,
        name=name or f"{network.name} guided by {guide.name}",
        null=None,
        guide=True,
        inference=network.inference and guide.inference,
    )


def _objection(network: ScoreNetwork) -> str | None:
    about = network.parameterisation
    if about.guide:
        return "has a guide already; give the two that it is made of"
    if about.reads_scale or about.guided:
        return "is guided within, by a scale of its own"
    if network.measured is not None:
        return "follows a measurement, which is led by a driver"
    return None


def _differences(network: ScoreNetwork, guide: ScoreNetwork) -> list[str]:
    """In what the two differ that plans or calls are made of."""
    a, b = network.parameterisation, guide.parameterisation
    found = [
        f.name for f in fields(a) if f.name not in OWN and getattr(a, f.name) != getattr(b, f.name)
    ]
    return found + [name for name in CALLS if getattr(network, name) != getattr(guide, name)]
