"""Hands the pointers of `group_norm` and `attention` to the compiled modules, as native.py does the step's.

A launch takes the tensors of each call, which are like the ones it was bound to in everything but
their addresses. Threads share it: the params hold what its calls have in common, addresses go with
each call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..ops.attention import AttentionArgs
from ..ops.attention import Launch as AttentionLaunch
from ..ops.group_norm import GroupNormArgs
from ..ops.group_norm import Launch as GroupNormLaunch
from .native import DTYPE, View, loaded, out_of_place
from .views import scattered, strides

KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

# Runs params at the addresses of a call, on the device of the tensor, which is one of the call's.
Run = Callable[[Any, list[int], Tensor], None]


def _on_cpu(op: str) -> Run:
    run = getattr(loaded("_cpu"), op)
    return lambda p, addresses, _: run(p, addresses)


def _on_cuda(op: str) -> Run:
    """On the current stream of each launch. Scratch comes from torch's allocator, which knows the
    stream and a capture's pool."""
    found = loaded("_cuda")
    run, workspace = getattr(found, op), getattr(found, f"{op}_workspace")

    def launch(p: Any, addresses: list[int], tensor: Tensor) -> None:
        size = workspace(p, addresses)
        scratch = tensor.new_empty(size, dtype=torch.uint8) if size else None
        device = tensor.device.index or 0
        stream = torch.cuda.current_stream(device).cuda_stream
        run(p, addresses, 0 if scratch is None else scratch.data_ptr(), stream, device)

    return launch


def _objection(name: str, tensors: dict[str, Tensor]) -> str | None:
    for field, tensor in tensors.items():
        if reason := out_of_place(name, field, tensor):
            return reason
        if tensor.dtype not in KERNEL_DTYPES:
            return f"the kernels of {name} take float32, bfloat16 and float16; {field} is {tensor.dtype}"
    return None


def group_norm_views(args: GroupNormArgs) -> dict[str, tuple[int, int, int] | None]:
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


def objection_images(args: GroupNormArgs) -> str | None:
    """Why the images of a group norm are laid out as no kernel takes them, or None."""
    views = group_norm_views(args)
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


def _objection_group_norm(args: GroupNormArgs, name: str) -> str | None:
    given = {field: t for field, t in vars(args).items() if isinstance(t, Tensor)}
    return _objection(name, given) or objection_images(args)


def objection_group_norm_cpp(args: GroupNormArgs) -> str | None:
    return _objection_group_norm(args, "_cpu")


def objection_group_norm_cuda(args: GroupNormArgs) -> str | None:
    return _objection_group_norm(args, "_cuda")


def bind_group_norm(args: GroupNormArgs, name: str, run: Run) -> GroupNormLaunch:
    """A launch by `run` of the params of the module `name`."""
    p = loaded(name).GroupNormParams()
    p.batch, p.channels = args.x.shape[:2]
    p.pixels = args.x.shape[2:].numel()
    p.groups, p.silu, p.eps = args.groups, int(args.silu), args.eps
    found = group_norm_views(args)
    order = ("x", "out", "weight", "bias", "scale", "shift", "residual", "summed")
    views: list[View] = []
    for field in order:
        steps = found.get(field)
        none = steps is None
        views.append((0, 0, 0, 0, 0) if none else (0, *steps, DTYPE[getattr(args, field).dtype]))  # type: ignore[misc]
    p.at(views)

    def launch(tensors: Sequence[Tensor | None]) -> None:
        addresses = [0 if t is None else t.data_ptr() for t in tensors]
        run(p, addresses, tensors[0])  # type: ignore[arg-type]

    return launch


def bind_group_norm_cpp(args: GroupNormArgs) -> GroupNormLaunch:
    return bind_group_norm(args, "_cpu", _on_cpu("group_norm"))


def bind_group_norm_cuda(args: GroupNormArgs) -> GroupNormLaunch:
    return bind_group_norm(args, "_cuda", _on_cuda("group_norm"))


def objection_tokens(args: AttentionArgs) -> str | None:
    """Why q, k, v and out are laid out as no kernel takes them, or None."""
    for name in ("q", "k", "v", "out"):
        tensor = getattr(args, name)
        if tensor.stride(3) != 1:
            return (
                f"the head dim of {name} has stride {tensor.stride(3)}; kernels need 1: "
                "make it contiguous"
            )
    return None


def _objection_attention(args: AttentionArgs, name: str) -> str | None:
    given = {field: t for field, t in vars(args).items() if isinstance(t, Tensor)}
    return _objection(name, given) or objection_tokens(args)


def objection_attention_cpp(args: AttentionArgs) -> str | None:
    return _objection_attention(args, "_cpu")


def objection_attention_cuda(args: AttentionArgs) -> str | None:
    """The tensor cores take 16-bit numbers; loads are 16 bytes wide."""
    if reason := _objection_attention(args, "_cuda"):
        return reason
    if args.q.dtype == torch.float32:
        return "the CUDA kernel works on bfloat16 and float16; backend='triton' takes float32"
    if args.q.shape[3] % 8:
        return f"head dim {args.q.shape[3]} is no multiple of 8, which backend='triton' takes"
    for name in ("q", "k", "v", "out"):
        tensor = getattr(args, name)
        if tensor.data_ptr() % 16 or any(step % 8 for step in _rows(tensor)):
            return (
                f"the rows of {name} do not start at multiples of 16 bytes, strides "
                f"{list(tensor.stride())}; make it contiguous, or use backend='triton'"
            )
    return None


def _rows(tensor: Tensor) -> list[int]:
    """Strides of batch, head and token; 0 of an axis of one, which may have any."""
    return [
        step if n > 1 else 0 for n, step in zip(tensor.shape[:3], tensor.stride()[:3], strict=True)
    ]


def bind_attention(args: AttentionArgs, name: str, run: Run) -> AttentionLaunch:
    """A launch by `run` of the params of the module `name`."""
    p = loaded(name).AttentionParams()
    p.batch, p.heads, p.queries, p.dim = args.q.shape
    p.keys = args.k.shape[2]
    p.dtype, p.scale = DTYPE[args.q.dtype], args.factor
    p.at([_rows(tensor) for tensor in args.tensors()])

    def launch(tensors: Sequence[Tensor]) -> None:
        run(p, [t.data_ptr() for t in tensors], tensors[0])

    return launch


def bind_attention_cpp(args: AttentionArgs) -> AttentionLaunch:
    return bind_attention(args, "_cpu", _on_cpu("attention"))


def bind_attention_cuda(args: AttentionArgs) -> AttentionLaunch:
    return bind_attention(args, "_cuda", _on_cuda("attention"))
