"""The op `norms` in C++ and CUDA C++; ops/norms.py defines it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.norms import Launch, NormsArgs
from .native import ABSENT, Module, implementations, view
from .views import axes, dense, layout_objection


def float_objection(name: str, tensor: Tensor) -> str | None:
    """That kernels of sums and selections take float32."""
    if tensor.dtype == torch.float32:
        return None
    return f"the kernels take float32; {name} is {tensor.dtype}"


def objection(on: Module, args: NormsArgs) -> str | None:
    images = {"x": args.x} if args.y is None else {"x": args.x, "y": args.y}
    return (
        on.objection("x", args.x)
        or float_objection("x", args.x)
        or layout_objection(images, {"out": args.out})
    )


def bind(on: Module, args: NormsArgs) -> Launch:
    p = on.params("NormsParams")
    p.batch = len(args.x)
    together = dense(args.x) and (args.y is None or dense(args.y))
    p.channels, p.pixels = axes(args.x, together)
    p.x, p.y = view(args.x), ABSENT if args.y is None else view(args.y)
    run = on.layer_kernel("norms", args.x.device)

    def launch(tensors: Sequence[Tensor | None]) -> None:
        run(p, [0 if t is None else t.data_ptr() for t in tensors])

    return launch


CPP, CUDA = implementations(bind, objection)
