"""The op `noise` in C++ and CUDA C++; ops/noise.py defines it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..ops.noise import NoiseArgs
from .native import Module, address, implementations, view
from .views import axes, dense, layout_objection

SMALL = ("seed", "row", "index")


def objection(on: Module, args: NoiseArgs) -> str | None:
    small = {name: getattr(args, name) for name in SMALL}
    return on.objection("out", args.out) or layout_objection({"out": args.out}, small)


def bind(on: Module, args: NoiseArgs) -> Callable[..., None]:
    p = on.params("NoiseParams")
    p.batch = len(args.out)
    p.channels, p.pixels = axes(args.out, dense(args.out))
    p.out = view(args.out)
    for name in SMALL:
        setattr(p, name, address(getattr(args, name)))
    p.rows = 0 if args.index is None else len(args.index)
    return partial(_launch, on.kernel("noise", args.out.device), p, args)


def _launch(run: Callable[..., None], p: Any, _args: NoiseArgs, key: int = 0, m: int = 0) -> None:
    """The launch holds `_args` so that the memory behind p lives as long as it does."""
    run(p, key & 0xFFFFFFFF, m)


CPP, CUDA = implementations(bind, objection)
