"""A network, recorded: its graph once, and the operations of each batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .fuse import fused
from .joined import joined
from .lower import Lowering, Refused
from .operations import Operation
from .siblings import Joint, merged
from .values import Value, contiguous


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
    """A module's graph of ATen calls, in which the batch is a number like others.

    module  called as module(inputs), a list
    inputs  of a call of at least two entries
    Raises Refused with the reason where torch cannot export it.
    """

    def __init__(self, module: nn.Module, inputs: Sequence[Tensor]) -> None:
        self.module = module
        self.kinds = [(tuple(t.shape[1:]), t.dtype) for t in inputs]
        self._whole = self._exported(inputs)

    def at(self, batch: int, joint: Joint) -> Recorded:
        """The operations of a call of `batch` entries.

        joint  weights that several layers read as one, so far
        """
        program = self._whole
        given: dict[str, Any] = {}
        inputs = iter(self.kinds)
        values = []
        for spec in program.graph_signature.input_specs:
            name = spec.arg.name
            if spec.kind.name == "USER_INPUT":
                shape, dtype = next(inputs)
                value = Value.new((batch, *shape), contiguous((batch, *shape)), dtype)
                given[name] = value
                values.append(value)
            else:
                given[name] = self._constant(program, spec.target)
        for node in program.graph.nodes:
            if node.op == "get_attr":
                given[str(node.target)] = getattr(program.graph_module, str(node.target))
        lowering = Lowering(program.graph, given)
        with torch.no_grad():
            outputs = lowering.run()
        operations = fused(lowering.operations, outputs)
        operations = merged(operations, outputs, joint)
        operations = joined(operations, {value.buffer for value in (*values, *outputs)})
        return Recorded(values, operations, outputs)

    @property
    def text(self) -> str:
        """The graph and what it is called with, as text that is the same in another process."""
        return f"{self._whole.graph}{self.kinds}"

    def constants(self) -> list[Tensor]:
        """Tensors whose values the graph reads: parameters, buffers, and those of a function's closure."""
        found = [*self._whole.state_dict.values(), *self._whole.constants.values()]
        return [tensor for tensor in found if isinstance(tensor, Tensor)]

    @staticmethod
    def _constant(program: Any, target: str) -> Tensor:
        found: Mapping[str, Any] = program.state_dict
        made = found[target] if target in found else program.constants[target]
        return made.detach()

    def _exported(self, inputs: Sequence[Tensor]) -> Any:
        auto = torch.export.Dim.AUTO
        shapes = [{0: auto} for _ in inputs]
        try:
            with torch.no_grad():
                return torch.export.export(
                    self.module, (list(inputs),), dynamic_shapes=(shapes,), strict=False
                )
        except Exception as error:
            said = str(error).strip().splitlines()
            raise Refused(f"torch.export cannot take it: {said[0] if said else error!r}") from error
