"""The op `attention` in C++ and CUDA C++; ops/attention.py defines it. Launches as those of group_norm.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ops.attention import AttentionArgs, Launch
from .native import DTYPE, Module, implementations

FIELDS = ("q", "k", "v", "out")


def layout_objection(args: AttentionArgs) -> str | None:
    """Why q, k, v and out are laid out as no kernel takes them, or None."""
    for name in FIELDS:
        tensor = getattr(args, name)
        if tensor.stride(3) != 1:
            return (
                f"the head dim of {name} has stride {tensor.stride(3)}; kernels need 1: "
                "make it contiguous"
            )
    return None


def objection(on: Module, args: AttentionArgs) -> str | None:
    given = {field: t for field, t in vars(args).items() if isinstance(t, Tensor)}
    reason = on.objection_to_floats(given) or layout_objection(args)
    return reason or (_tensor_cores(args) if on.device == "cuda" else None)


def _tensor_cores(args: AttentionArgs) -> str | None:
    """They take 16-bit numbers; loads are 16 bytes wide."""
    if args.q.dtype == torch.float32:
        return "the CUDA kernel works on bfloat16 and float16; backend='triton' takes float32"
    if args.q.shape[3] % 8:
        return f"head dim {args.q.shape[3]} is no multiple of 8, which backend='triton' takes"
    for name in FIELDS:
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


def bind(on: Module, args: AttentionArgs) -> Launch:
    p = on.params("AttentionParams")
    p.batch, p.heads, p.queries, p.dim = args.q.shape
    p.keys = args.k.shape[2]
    p.dtype, p.scale = DTYPE[args.q.dtype], args.factor
    p.at([_rows(tensor) for tensor in args.tensors()])
    run = on.layer_kernel("attention", args.q.device)

    def launch(tensors: Sequence[Tensor]) -> None:
        run(p, [t.data_ptr() for t in tensors])

    return launch


CPP, CUDA = implementations(bind, objection)
