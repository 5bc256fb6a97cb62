"""The op `quantile` in C++ and CUDA C++; ops/quantile.py defines it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..ops.quantile import Launch, QuantileArgs
from .native import Module, implementations, view
from .norms import float_objection
from .views import axes, dense, layout_objection, strides


def line(x: Tensor) -> Tensor:
    """x, or [B, 1, n] of it where the elements of a sample are dense: a selection knows no order."""
    if not dense(x) and strides(x) == (x.stride(0), 1, x.shape[1]):
        return x.movedim(1, -1).flatten(1)[:, None]
    return x


def objection(on: Module, args: QuantileArgs) -> str | None:
    small = {"out": args.out, "q": args.q}
    return (
        on.objection("x", args.x)
        or float_objection("x", args.x)
        or layout_objection({"x": args.x}, small)
    )


def bind(on: Module, args: QuantileArgs) -> Launch:
    p = on.params("QuantileParams")
    p.batch = len(args.x)
    x = line(args.x)
    p.channels, p.pixels = axes(x, dense(x))
    p.x = view(x)
    run = on.kernel("quantile", args.x.device)

    def launch(tensors: Sequence[Tensor]) -> None:
        run(p, [t.data_ptr() for t in tensors])

    return launch


CPP, CUDA = implementations(bind, objection)
