"""What makes the parameters of each operation; of others torch does the work."""

from __future__ import annotations

from . import emit_elements as elements
from . import emit_layers as layers
from . import operations as ops
from .emit import Maker

MAKERS: dict[type[ops.Operation], Maker] = {
    ops.Conv: layers.conv,
    ops.Linear: layers.linear,
    ops.MatMul: layers.matmul,
    ops.GroupNorm: layers.group_norm,
    ops.LayerNorm: layers.layer_norm,
    ops.Softmax: layers.softmax,
    ops.Reduce: layers.reduce,
    ops.Attention: layers.attention,
    ops.Map: elements.mapped,
    ops.Copy: elements.copy,
    ops.Pad: elements.pad,
    ops.Upsample: elements.upsample,
    ops.Pool: elements.pool,
    ops.Embedding: elements.embedding,
}
