"""Which rule an ATen operation has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import elementwise, layers, memory, views

Rule = Callable[..., Any]

RULES: dict[str, Rule] = {
    **{name: layers.convolution for name in ("conv1d", "conv2d", "convolution")},
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
    **{name: layers.reduce for name in ("mean", "sum")},
    "adaptive_avg_pool2d": layers.global_pool,
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
    "cat": memory.cat,
    "stack": memory.stack,
    "pad": memory.pad,
    "constant_pad_nd": memory.pad,
    "repeat": memory.repeat,
    **{name: memory.constant for name in memory.CONSTANT},
    **{name: elementwise.rule for name in elementwise.TERMS},
}
