"""The op `step` in C++ and CUDA C++; ops/step.py defines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..ops.step import StepArgs
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


class Bound:
    """A launch over buffers that stay: its tensors are kept, the addresses of the outputs come with each."""

    def __init__(self, on: Module, args: StepArgs) -> None:
        if on.device == "cuda" and args.ticket is None:
            args = replace(args, ticket=torch.zeros_like(args.row))
        self._on, self._args, self._outputs = on, args, Outputs(args)
        self._run = on.kernel("step", args.slots.device)
        self._prepared: dict[tuple, Any] = {}  # None where an output has to be copied

    def __call__(self, outs: Sequence[Tensor] = ()) -> None:
        kinds = tuple([(o.shape, o.stride(), o.dtype, o.device, o.is_neg()) for o in outs])
        try:  # one look-up: hashing the kinds takes a third of a small launch
            p = self._prepared[kinds]
        except KeyError:
            readable = self._outputs.readable(outs)
            p = self._prepared[kinds] = _params(self._args, outs, self._on) if readable else None
        addresses = [o.data_ptr() for o in outs]
        if p is None or self._outputs.overwritten(addresses):
            return self(self._outputs.copied(outs))
        self._run(p, addresses)

    def behind(self, outs: Sequence[Tensor]) -> Any | None:
        """Parameters of the step behind a recorded network, whose outputs always lie there; None where one of
        them has to be copied first."""
        addresses = [o.data_ptr() for o in outs]
        if not self._outputs.readable(outs) or self._outputs.overwritten(addresses):
            return None
        p = _params(self._args, outs, self._on)
        p.out = [view(out) for out in outs]
        return p


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
    for name in ("label", "end_label", "row", "seed", "src", "dst", "given", "status", "ticket"):
        setattr(p, name, address(getattr(args, name)))
    if args.label is not None:
        p.label_dtype = DTYPE[args.label.dtype]
    p.coef, p.index, p.labels = (address(t) for t in args.table)
    p.rows = len(args.table.index)
    p.room = min((len(t) for t in (args.net_in, args.label) if t is not None), default=0)
    return p


CPP, CUDA = implementations(Bound, objection)
