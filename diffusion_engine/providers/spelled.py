"""A program in operations that the exporter and the runtimes take as torch means them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten
NO_ZERO = 1e-8  # onnxscript's optimiser leaves out the addition of what is smaller


def _mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp x)); OpenVINO has an operation for it, and does not compile it in every network."""
    return x * torch.tanh(torch.nn.functional.softplus(x))


def _squeeze(x: Tensor, dim: int) -> Tensor:
    """Of a size that is not 1 torch leaves what ONNX refuses."""
    return x.select(dim, 0) if x.shape[dim] == 1 else x


SPELLED: dict[Any, Callable[..., Tensor]] = {
    aten.mish.default: _mish,
    aten.squeeze.dim: _squeeze,
}


def spelled(program: Any) -> Any:
    """The same program of torch.export."""
    if any(node.target in SPELLED for node in program.graph.nodes):
        program = program.run_decompositions(SPELLED)
    for node in program.graph.nodes:
        if node.target == aten.add.Tensor and _small(node.args[1]):
            _added(program.graph, node)
    return program


def _small(value: object) -> bool:
    return isinstance(value, float) and 0 < abs(value) <= NO_ZERO


def _added(graph: fx.Graph, node: fx.Node) -> None:
    """x + s as s - (-x), which has the same bits."""
    x, small = node.args
    assert isinstance(x, fx.Node)
    with graph.inserting_before(node):
        negated = graph.call_function(aten.neg.default, (x,))
    negated.meta = dict(x.meta)
    node.target, node.args = aten.rsub.Scalar, (negated, small)
