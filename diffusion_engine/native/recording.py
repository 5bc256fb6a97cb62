"""`Recording`: a network as the native executor runs it, at any batch size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..backends.checksum import checksums
from ..executors.buffers import Inputs
from ..networks.contents import Contents
from ..networks.network import ScoreNetwork
from ..networks.wrapper import unwrapped
from .lower import Refused
from .program import Program
from .record import Graph
from .weights import Weights

WITHIN = 1e-4  # of the largest element of an output: what a recording may differ by from the module


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
    x, label, condition, latent = given
    named = condition.values() if isinstance(condition, Mapping) else [condition]
    return [t for t in (x, label, *named, latent) if t is not None]


def taken_up(like: Inputs, tensors: list[Tensor]) -> Inputs:
    """The call of tensors, where the others were those of `like`."""
    x, label, *rest = tensors
    condition: Any = like[2]
    if isinstance(condition, Mapping):
        condition = {name: rest.pop(0) for name in condition}
    elif condition is not None:
        condition = rest.pop(0)
    return x, label, condition, rest.pop(0) if like[3] is not None else None


class Recording:
    """A network's graph and its packed weights. Raises Refused where it cannot be recorded.

    network  in eval mode, on the CPU in float32
    given    inputs of a call, of any number of entries
    pool     threads that replay it
    """

    def __init__(self, network: ScoreNetwork, given: Inputs, pool: Any) -> None:
        self.network, self.pool = network, pool
        if objection := unfit(network):
            raise Refused(objection)
        self._called = Called(network, given)
        self._example = [t[:1] for t in taken_apart(given)]
        self._graph = Graph(self._called, self._inputs(2))
        self.weights = Weights()
        module = unwrapped(network.module)
        self._contents = Contents.of(module) if isinstance(module, nn.Module) else None
        self._sums = self._checksums()

    def follows(self) -> bool:
        """Whether the module is still what was recorded, weights and all."""
        if self._contents is None:
            return True
        return self._contents.same() and self._checksums() == self._sums

    def program(self, batch: int) -> Program:
        """A call of `batch` entries on memory of its own, held against the module itself."""
        made = Program(self._graph.at(batch), self.pool, self.weights)
        given = self._inputs(batch)
        with torch.no_grad():
            want, got = self._called(given), made(given)
        if len(want) != len(got):
            raise Refused(f"it returned {len(want)} tensors and the recording has {len(got)}")
        for a, b in zip(want, got, strict=True):
            error = float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))
            if a.shape != b.shape or not error <= WITHIN:
                raise Refused(
                    f"its outputs differ by {error:.1e} of the largest from the module's own: it draws random "
                    "numbers, or keeps something from call to call"
                )
        return made

    def _inputs(self, batch: int) -> list[Tensor]:
        """Of so many entries, the floats of different sizes."""
        numbers = torch.Generator().manual_seed(0)
        made = []
        for i, one in enumerate(self._example):
            wide = one.expand(batch, *one.shape[1:]).clone(memory_format=torch.preserve_format)
            if i == 0:
                wide.copy_(torch.randn(wide.shape, generator=numbers))
            made.append(wide)
        return made

    def _checksums(self) -> list[int]:
        return [] if self._contents is None else checksums(self._contents.tensors())


def unfit(network: ScoreNetwork) -> str | None:
    """Why a network is run by torch, as a sentence; None where it may be recorded."""
    rule = network.parameterisation
    if rule.derivative is not None or rule.gradient is not None:
        return "it differentiates in its forward"
    module = network.module
    if isinstance(module, nn.Module):
        hooked = [name for name, part in module.named_modules() if _hooks(part)]
        if hooked:
            return f"a hook on {hooked[0] or 'the network'!r} would not be called"
        other = [n for n, p in module.named_parameters() if p.dtype != torch.float32]
        if other:
            return f"its weight {other[0]!r} is not in float32"
    return None


HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def _hooks(module: nn.Module) -> bool:
    return any(getattr(module, name) for name in HOOKS)
