"""The op `conv3x3` in C++; ops/conv3x3.py defines it. A GPU has cuDNN, which is the better choice there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.conv3x3 import Conv3x3Args, Launch
from ..ops.op import Implementation
from .native import CPU, view
from .views import layout_objection, strides


def _last(tensors: Sequence[Tensor]) -> bool | None:
    """Whether images have all their channels next to each other, or else all their pixels; None where
    neither holds for all of them."""
    found = [(strides(t), t.shape[1], t.shape[2:].numel()) for t in tensors]
    for axis, last in ((1, True), (2, False)):
        if all(steps and (steps[axis] == 1 or sizes[axis - 1] == 1) for steps, *sizes in found):
            return last
    return None


def _results(args: Conv3x3Args) -> list[Tensor]:
    return [args.out] if args.residual is None else [args.out, args.residual]


def objection(args: Conv3x3Args) -> str | None:
    if reason := CPU.objection("x", args.x):
        return reason
    if args.x.dtype != torch.float32:
        return f"the kernel takes float32; x is {args.x.dtype}"
    images = {name: getattr(args, name) for name in ("x", "residual", "out")}
    small = {name: getattr(args, name) for name in ("packed", "bias")}
    if reason := layout_objection(images, small):
        return reason
    for names, tensors in (("x", [args.x]), ("out and residual", _results(args))):
        if _last(tensors) is None:
            given = " and ".join(f"strides {list(t.stride())}" for t in tensors)
            return (
                f"{names} with {given} have neither their pixels nor their channels next to each other; "
                "give them one memory format"
            )
    return None


def bind(args: Conv3x3Args) -> Launch:
    p = CPU.params("Conv3x3Params")
    p.batch, p.channels, p.height, p.width = args.x.shape
    p.out_channels, p.tile = args.weight.shape[0], args.tile
    p.x_last, p.out_last = int(bool(_last([args.x]))), int(bool(_last(_results(args))))
    p.at([view(tensor) for tensor in (args.x, args.out, args.residual)])
    run = CPU.kernel("conv3x3", args.x.device)

    def launch(tensors: Sequence[Tensor | None]) -> None:
        x, _, packed, bias, residual, out = tensors
        given = (x, packed, bias, residual, out)
        run(p, [0 if t is None else t.data_ptr() for t in given])

    return launch


CPP = Implementation(bind=bind, objection=objection)
