"""The op `step` in C++ and CUDA C++; ops/step.py defines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..ops.step import Launch, StepArgs
from .native import DTYPE, Module, address, implementations, view
from .outputs import Outputs
from .views import axes, dense, layout_objection


def objection(on: Module, args: StepArgs) -> str | None:
    if reason := on.objection("slots", args.slots):
        return reason
    if args.slots.dtype != torch.float32:
        kind = str(args.slots.dtype).removeprefix("torch.")
        return f"the kernels of {on.name} keep float32 slots; got {kind}"
    return layout_objection(args.images(), args.small())


def bind(on: Module, args: StepArgs) -> Launch:
    """Its tensors are kept; the addresses of the outputs come with each launch."""
    if on.device == "cuda" and args.ticket is None:
        args = replace(args, ticket=torch.zeros_like(args.row))
    run, outputs = on.kernel("step", args.slots.device), Outputs(args)
    first, end = outputs.first, outputs.end
    prepared: dict[tuple, Any] = {}  # None where an output has to be copied

    def launch(outs: Sequence[Tensor] = ()) -> None:
        kinds = tuple([(o.shape, o.stride(), o.dtype, o.device, o.is_neg()) for o in outs])
        if kinds not in prepared:
            prepared[kinds] = _params(args, outs, on) if outputs.readable(outs) else None
        p, addresses = prepared[kinds], [o.data_ptr() for o in outs]
        if p is None or any([first <= a < end and outputs.overwritten(a) for a in addresses]):
            return launch(outputs.copied(outs))
        run(p, addresses)

    return launch


def _params(args: StepArgs, outs: Sequence[Tensor], on: Module) -> Any:
    """Those of all launches with outputs like these; their addresses come with each."""
    p, slots = on.params("StepParams"), args.slots
    p.batch, p.block = slots.shape[1:3]
    merged = all(map(dense, (*args.images().values(), *outs)))
    p.channels, p.pixels = axes(slots[0], merged)
    p.slot = [view(slot) for slot in slots]
    p.out = [(0, *view(out)[1:]) for out in outs]
    p.blocks = [out.shape[1] // p.block for out in outs]
    p.out_entries = [len(out) for out in outs]
    p.outputs = 0 if args.src is None else args.src.shape[1]
    p.entries = 0 if args.dst is None else args.dst.shape[1]
    p.inputs, p.normals, p.learned = args.inputs, args.normals, int(args.learned)
    for name in ("net_in", "mask", "known", "denoised"):
        setattr(p, name, view(getattr(args, name)))
    if args.noise is not None and len(args.noise):
        p.noise, p.noise_draw = view(args.noise[0]), args.noise.stride(0)
    for name in ("label", "row", "seed", "src", "dst", "given", "status", "ticket"):
        setattr(p, name, address(getattr(args, name)))
    if args.label is not None:
        p.label_dtype = DTYPE[args.label.dtype]
    p.coef, p.index, p.labels = (address(t) for t in args.table)
    p.rows = len(args.table.index)
    p.room = min((len(t) for t in (args.net_in, args.label) if t is not None), default=0)
    return p


CPP, CUDA = implementations(bind, objection)
