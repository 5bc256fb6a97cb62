"""A network, recorded: its graph once, and the operations of each batch size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..executors.lru import Lru
from .export import Exported, exported
from .fuse import fused
from .joined import joined
from .lower import Folded, Lowering, Refused
from .operations import Operation
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
        self._joint: Joint = {}
        self._folded: Folded = {}
        self._static: Lru[int, Exported] = Lru(STATIC)
        self._whole: Exported | None = None
        try:
            self._whole = exported(module, inputs, dynamic=True)
        except Refused:
            self._of(len(inputs[0]))

    def at(self, batch: int) -> Recorded:
        """The operations of a call of `batch` entries. Raises Refused."""
        if self._whole is not None and self._whole.takes(batch):
            try:
                return self._recorded(self._whole, batch)
            except Refused:
                raise
            except Exception:  # a shape that only other sizes have
                pass
        return self._recorded(self._of(batch), batch)

    def _of(self, batch: int) -> Exported:
        """The graph of that size alone."""
        made = self._static.get(batch)
        if made is None:
            given = [t.expand(batch, *t.shape[1:]).contiguous() for t in self._example]
            made = exported(self.module, given, dynamic=False)
            self._static.put(batch, made, 1)
        return made

    def _recorded(self, graph: Exported, batch: int) -> Recorded:
        given: dict[str, Any] = dict(graph.constants)
        values = []
        for name, (shape, dtype) in zip(graph.inputs, self.kinds, strict=True):
            value = Value.new((batch, *shape), contiguous((batch, *shape)), dtype)
            given[name] = value
            values.append(value)
        lowering = Lowering(graph.program.graph, given, self._folded)
        with torch.no_grad():
            outputs = lowering.run()
        operations = fused(_needed(lowering.operations, outputs), outputs)
        operations = merged(operations, outputs, self._joint)
        operations = joined(operations, {value.buffer for value in (*values, *outputs)})
        return Recorded(values, operations, outputs)


def _needed(operations: list[Operation], outputs: list[Value]) -> list[Operation]:
    """Without those whose results nothing reads."""
    read = {value.buffer for value in outputs}
    made: list[Operation] = []
    for operation in reversed(operations):
        if any(value.buffer in read for value in operation.writes()):
            read.update(value.buffer for value in operation.values())
            made.append(operation)
    return made[::-1]
