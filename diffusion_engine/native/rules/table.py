"""Which rule an ATen operation has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import complexes, convolutions, elementwise, layers, memory, sums, views

Rule = Callable[..., Any]

RULES: dict[str, Rule] = {
    **{name: convolutions.convolution for name in ("conv1d", "conv2d")},
    "convolution": convolutions.any_of_them,
    "conv3d": convolutions.volume,
    **{name: convolutions.transposed for name in ("conv_transpose1d", "conv_transpose2d")},
    "linear": layers.linear,
    "addmm": layers.addmm,
    **{name: layers.matmul for name in ("mm", "bmm", "matmul")},
    "baddbmm": layers.baddbmm,
    "group_norm": layers.group_norm,
    "layer_norm": layers.layer_norm,
    "native_layer_norm": layers.native_layer_norm,
    "rms_norm": layers.rms_norm,
    **{name: layers.softmax for name in ("softmax", "_softmax")},
    "scaled_dot_product_attention": layers.attention,
    **{name: sums.total for name in ("mean", "sum")},
    "linalg_vector_norm": sums.vector_norm,
    "einsum": sums.einsum,
    "adaptive_avg_pool2d": sums.global_pool,
    **{name: layers.pool for name in ("avg_pool2d", "max_pool2d")},
    **{name: layers.upsample for name in ("upsample_nearest1d", "upsample_nearest2d")},
    "embedding": layers.embedding,
    **{name: views.view for name in views.NAMES},
    **{name: views.same for name in views.SAME},
    "to": views.to,
    "_to_copy": views.to,
    "type_as": views.to,
    "reshape": views.reshape,
    "view": views.reshape,
    "_unsafe_view": views.reshape,
    "flatten": views.flatten,
    "sym_size": views.sym_size,
    **{name: memory.cat for name in ("cat", "concat", "concatenate")},
    "copy": memory.copy,
    **{name: memory.scatter for name in ("slice_scatter", "select_scatter")},
    "repeat_interleave": memory.repeat_interleave,
    "pixel_shuffle": memory.pixel_shuffle,
    "pixel_unshuffle": memory.pixel_unshuffle,
    "stack": memory.stack,
    "pad": memory.pad,
    "constant_pad_nd": memory.pad,
    "repeat": memory.repeat,
    **{name: memory.constant for name in memory.CONSTANT},
    **{name: elementwise.rule for name in elementwise.TERMS},
    **{name: complexes.multiply for name in ("mul", "multiply")},
}
