"""The op `brownian` in C++ and CUDA C++; ops/brownian.py defines it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..ops.brownian import BrownianArgs
from .native import Module, address, implementations, view
from .views import axes, dense, layout_objection

SMALL = ("seed", "row", "terms", "weight")


def objection(on: Module, args: BrownianArgs) -> str | None:
    small = {name: getattr(args, name) for name in SMALL}
    return on.objection("out", args.out) or layout_objection({"out": args.out[0]}, small)


def bind(on: Module, args: BrownianArgs) -> Callable[[], None]:
    p, image = on.params("BrownianParams"), args.out[0]
    p.draws, p.batch = args.out.shape[:2]
    p.channels, p.pixels = axes(image, dense(image))
    p.out, p.out_draw = view(image), args.out.stride(0)
    for name in SMALL:
        setattr(p, name, address(getattr(args, name)))
    p.rows = len(args.terms)
    return partial(_launch, on.kernel("brownian", args.out.device), p, args)


def _launch(run: Callable[[Any], None], p: Any, _args: BrownianArgs) -> None:
    """The launch holds `_args` so that the memory behind p lives as long as it does."""
    run(p)


CPP, CUDA = implementations(bind, objection)
