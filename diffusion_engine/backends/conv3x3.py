"""Hands the pointers of `conv3x3` to `_cpu`. A GPU has cuDNN, which is the better choice there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.conv3x3 import Conv3x3Args, Launch
from .native import DTYPE, View, loaded, out_of_place
from .views import scattered, strides

ABSENT: View = (0, 0, 0, 0, 0)


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


def objection_conv3x3_cpp(args: Conv3x3Args) -> str | None:
    if reason := out_of_place("_cpu", "x", args.x):
        return reason
    if args.x.dtype != torch.float32:
        return f"the kernel takes float32; x is {args.x.dtype}"
    for name in ("x", "residual", "out"):
        tensor = getattr(args, name)
        if tensor is not None and strides(tensor) is None:
            return scattered(name, tensor)
    for name in ("packed", "bias"):
        tensor = getattr(args, name)
        if tensor is not None and not tensor.is_contiguous():
            return f"{name} is not contiguous: strides {list(tensor.stride())}"
    for images in ([args.x], _results(args)):
        if _last(images) is None:
            given = " and ".join(f"strides {list(t.stride())}" for t in images)
            names = "x" if len(images) == 1 and images[0] is args.x else "out and residual"
            return (
                f"{names} with {given} have neither their pixels nor their channels next to each other; "
                "give them one memory format"
            )
    return None


def bind_conv3x3_cpp(args: Conv3x3Args) -> Launch:
    p = loaded("_cpu").Conv3x3Params()
    p.batch, p.channels, p.height, p.width = args.x.shape
    p.out_channels, p.tile = args.weight.shape[0], args.tile
    p.x_last, p.out_last = int(bool(_last([args.x]))), int(bool(_last(_results(args))))
    p.at([_view(tensor) for tensor in (args.x, args.out, args.residual)])
    run = loaded("_cpu").conv3x3

    def launch(tensors: Sequence[Tensor | None]) -> None:
        x, _, packed, bias, residual, out = tensors
        run(p, [0 if t is None else t.data_ptr() for t in (x, packed, bias, residual, out)])

    return launch


def _view(tensor: Tensor | None) -> View:
    found = None if tensor is None else strides(tensor)
    return ABSENT if tensor is None or found is None else (0, *found, DTYPE[tensor.dtype])
