"""The op `group_norm` in C++ and CUDA C++; ops/group_norm.py defines it.

A launch takes the tensors of each call, which are like the ones it was bound to in everything but
their addresses. Threads share it: the params hold what its calls have in common, addresses go with
each call.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..ops.group_norm import GroupNormArgs, Launch
from .native import ABSENT, DTYPE, Module, View, implementations
from .views import scattered, strides

FIELDS = ("x", "out", "weight", "bias", "scale", "shift", "residual", "summed")


def strides_of(args: GroupNormArgs) -> dict[str, tuple[int, int, int] | None]:
    """(batch, channel, pixel) strides by name."""
    found: dict[str, tuple[int, int, int] | None] = {}
    for name in ("x", "out", "residual", "summed"):
        tensor = getattr(args, name)
        if tensor is not None:
            plain = tensor.ndim == 2 < args.x.ndim
            found[name] = (*tensor.stride(), 0) if plain else strides(tensor)
    for name in ("weight", "bias"):
        if (tensor := getattr(args, name)) is not None:
            found[name] = (0, tensor.stride(0), 0)
    for name in ("scale", "shift"):
        if (tensor := getattr(args, name)) is not None:
            found[name] = (*tensor.stride(), 0)
    return found


def layout_objection(args: GroupNormArgs) -> str | None:
    """Why the images of a group norm are laid out as no kernel takes them, or None."""
    views = strides_of(args)
    pixels = args.x.shape[2:].numel()
    dense = [name for name in ("x", "out", "residual", "summed") if name in views]
    for name in dense:
        if views[name] is None:
            return scattered(name, getattr(args, name))
    if "residual" in views and views["residual"][2] == 0:  # type: ignore[index]
        dense.remove("residual")  # one value per channel
    for axis, size in ((2, pixels), (1, args.x.shape[1])):
        if all(size == 1 or views[name][axis] == 1 for name in dense):  # type: ignore[index]
            return None
    return (
        "the images are neither all contiguous in their pixels nor all in their channels: "
        + ", ".join(f"{name} has strides {list(getattr(args, name).stride())}" for name in dense)
        + "; give them one memory format"
    )


def objection(on: Module, args: GroupNormArgs) -> str | None:
    given = {field: t for field, t in vars(args).items() if isinstance(t, Tensor)}
    return on.objection_to_floats(given) or layout_objection(args)


def bind(on: Module, args: GroupNormArgs) -> Launch:
    p, found = on.params("GroupNormParams"), strides_of(args)
    p.batch, p.channels = args.x.shape[:2]
    p.pixels = args.x.shape[2:].numel()
    p.groups, p.silu, p.eps = args.groups, int(args.silu), args.eps
    views: list[View] = []
    for field in FIELDS:
        steps = found.get(field)
        views.append((0, *steps, DTYPE[getattr(args, field).dtype]) if steps else ABSENT)
    p.at(views)
    run = on.layer_kernel("group_norm", args.x.device)

    def launch(tensors: Sequence[Tensor | None]) -> None:
        run(p, [0 if t is None else t.data_ptr() for t in tensors])

    return launch


CPP, CUDA = implementations(bind, objection)
