"""A network, recorded: its graph once, and the operations of each batch size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from ..executors.lru import Lru
from .export import Exported, exported
from .fuse import fused, needed
from .joined import joined
from .lower import UNFIT, Folded, Lowering, Refused
from .operations import Copy, Epilogue, Operation, Pad
from .siblings import Joint, merged
from .values import Value, contiguous

STATIC = 8  # graphs of one batch size each that are kept


class Recorded:
    """The operations of a call of one batch size.

    inputs  of the call, [batch, ...] each
    outputs of it
    """

    def __init__(
        self, inputs: list[Value], operations: list[Operation], outputs: list[Value]
    ) -> None:
        self.inputs, self.operations, self.outputs = inputs, operations, outputs

    def arithmetic(self) -> list[tuple]:
        """What decides the bits of an entry, copies left out: equal ones at two sizes give equal bits."""
        return [_arithmetic(op) for op in self.operations if not isinstance(op, Copy | Pad)]


def _arithmetic(op: Operation) -> tuple:
    """An operation, and which parts it was given."""
    about: list[Any] = [op.name]
    for field in fields(op):
        value = getattr(op, field.name)
        if isinstance(value, Epilogue):
            about += [
                value.activation,
                value.shift is None,
                value.gate is None,
                value.residual is None,
            ]
        elif field.name in ("factor", "shift", "mask"):
            about.append(value is None)
        elif field.name in ("activation", "term", "upsample"):
            about.append(value)
        elif field.name == "weight" and value is not None:
            about.append(tuple(value.shape))
        elif field.name == "weights":
            about += [tuple(part.shape) for part in value]
    return tuple(about)


class Graph:
    """A module's graph of ATen calls, in which the batch is a number like others; where the module does
    something else at another size of the batch, a graph of that size.

    module  called as module(inputs), a list
    inputs  of a call of at least two entries
    Raises Refused with the reason where torch cannot export it.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        self.module = module
        self.kinds = [(tuple(t.shape[1:]), t.dtype) for t in inputs]
        self._example = [t[:1].clone() for t in inputs]
        self._static: Lru[int, Exported] = Lru(STATIC)
        self._whole: Exported | None = None
        try:
            self._whole = exported(module, inputs, dynamic=True)
        except Refused:
            self._of(len(inputs[0]))

    def at(self, batch: int, joint: Joint, folded: Folded) -> Recorded:
        """The operations of a call of `batch` entries. Raises Refused.

        joint   biases of several layers that are done as one, so far
        folded  what calls of constants came to, so far
        """
        if self._whole is not None and self._whole.takes(batch):
            try:
                return self._recorded(self._whole, batch, joint, folded)
            except UNFIT:  # a shape that only other sizes have
                pass
        return self._recorded(self._of(batch), batch, joint, folded)

    def _of(self, batch: int) -> Exported:
        """The graph of that size alone."""
        made = self._static.get(batch)
        if made is None:
            given = [t.expand(batch, *t.shape[1:]).contiguous() for t in self._example]
            made = exported(self.module, given, dynamic=False)
            self._static.put(batch, made, 1)
        return made

    def _recorded(self, graph: Exported, batch: int, joint: Joint, folded: Folded) -> Recorded:
        given: dict[str, Any] = dict(graph.constants)
        values = []
        for name, (shape, dtype) in zip(graph.inputs, self.kinds, strict=True):
            value = Value.new((batch, *shape), contiguous((batch, *shape)), dtype)
            given[name] = value
            values.append(value)
        lowering = Lowering(graph.graph, given, folded)
        with torch.no_grad():
            outputs = lowering.run()
        operations = fused(needed(lowering.operations, outputs), outputs)
        operations = merged(operations, outputs, joint)
        operations = joined(operations, {value.buffer for value in (*values, *outputs)})
        return Recorded(values, operations, outputs)

    @property
    def dynamic(self) -> bool:
        """Whether the batch is a number like others in it."""
        return self._whole is not None

    @property
    def text(self) -> str:
        """The graph and what it is called with, as text that is the same in another process."""
        return f"{self._any.graph}{self.kinds}"

    def constants(self) -> list[Tensor]:
        """Tensors whose values the graph reads: parameters, buffers, and those of a function's closure."""
        return [t for t in self._any.constants.values() if isinstance(t, Tensor)]

    @property
    def _any(self) -> Exported:
        """One of its graphs, all of which have the same constants."""
        if self._whole is not None:
            return self._whole
        return self._of(len(self._example[0]) + 1)
