"""The op `step` in Triton; ops/step.py defines it, ops/layout.py the packed row.

One program updates BLOCK elements of one sample. What a row says is the same for the whole program,
so it is kept in scalars, and a term, a slot or a normal that the row leaves out costs a branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from diffusion_engine.ops import layout
from diffusion_engine.ops.step import Launch, StepArgs

from .cover import Cover, cover, objection, on_device, strides
from .philox import exponential, normals

SLOTS, NORMALS = tl.constexpr(layout.SLOTS), tl.constexpr(layout.NORMALS)
P, Q, RAW = tl.constexpr(layout.P), tl.constexpr(layout.Q), tl.constexpr(layout.RAW)
LO, HI, SCALE = tl.constexpr(layout.LO), tl.constexpr(layout.HI), tl.constexpr(layout.SCALE)
A, D, E, C = (tl.constexpr(i) for i in (layout.A, layout.D, layout.E, layout.C))
C_IN, COEF = tl.constexpr(layout.C_IN), tl.constexpr(layout.COEF)
V0, V1 = tl.constexpr(layout.V0), tl.constexpr(layout.V1)
U0, U1 = tl.constexpr(layout.U0), tl.constexpr(layout.U1)
NEXT, KEY, FLAGS = tl.constexpr(layout.NEXT), tl.constexpr(layout.KEY), tl.constexpr(layout.FLAGS)
READS, WRITES = tl.constexpr(layout.READS), tl.constexpr(layout.WRITES)
READ, JV, H = tl.constexpr(layout.READ), tl.constexpr(layout.JV), tl.constexpr(layout.H)
INDEX = tl.constexpr(layout.INDEX)
IS_LEARNED, IS_MASKED = tl.constexpr(layout.LEARNED), tl.constexpr(layout.MASKED)
NORMAL = tl.constexpr(layout.NORMAL)


@triton.jit
def add(total, weight, value):
    # A weight of zero leaves the value out: 0 * nan would be nan.
    return total + tl.where(weight != 0, weight * value, 0.0)


@triton.jit
def _step(
    slots, slots_at,  # K pointers; strides of (sample, c, px)
    row_ptr, seed_ptr, coef_ptr, index_ptr, labels_ptr,
    src_ptr, dst_ptr, ticket_ptr, status_ptr, label_ptr,
    outs, outs_at,  # a pointer for each tensor; for each (entry, block, c, px, number of blocks)
    net_in_ptr, net_in_at,  # (entry, block, c, px)
    noise, noise_at,  # a pointer for each draw
    mask_ptr, mask_at, known_ptr, known_at, denoised_ptr, denoised_at,
    channels, pixels, elements, programs, outputs, entries,
    M: tl.constexpr, I: tl.constexpr, LEARNED: tl.constexpr,
    BLOCK: tl.constexpr, CHANNELS: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    K: tl.constexpr = len(slots)
    program = tl.program_id(0) % programs
    b = (tl.program_id(0) // programs).to(tl.int64)
    r = tl.load(row_ptr + b).to(tl.int64)
    if r < 0:
        return
    coef, index = coef_ptr + r * COEF, index_ptr + r * INDEX
    reads, writes = tl.load(index + READS), tl.load(index + WRITES)
    flags, next_row = tl.load(index + FLAGS), tl.load(index + NEXT)
    key, seed = tl.load(index + KEY).to(tl.uint32), tl.load(seed_ptr + b)
    c, px, valid = cover(program, channels, pixels, elements, BLOCK, CHANNELS)
    offset = b * slots_at[0] + c * slots_at[1] + px * slots_at[2]

    state = ()
    for k in tl.static_range(K):
        needed = ((reads >> k) & 1) != 0
        state = state + (tl.load(slots[k] + offset, mask=valid & needed, other=0.0),)

    # Every program of the sample reads row[b]; the last one to come here replaces it. The barrier
    # holds the ticket back until all warps have read, and the loads above are still on their way.
    tl.debug_barrier()
    if tl.atomic_add(ticket_ptr + b, 1) == programs - 1:
        tl.store(row_ptr + b, next_row)
        tl.store(ticket_ptr + b, 0)

    denoised = tl.zeros([BLOCK], tl.float32)
    raw = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(K):
        denoised = add(denoised, tl.load(coef + P + k), state[k])
    scale = tl.full([BLOCK], 1.0, tl.float32)  # of the normals
    if outs is not None:
        variance = tl.zeros([BLOCK], tl.float32)
        jv = tl.maximum(tl.load(index + JV), 0)
        learned = LEARNED and (flags & IS_LEARNED) != 0
        for j in range(outputs):
            entry = tl.load(src_ptr + b * outputs + j).to(tl.int64)
            block = tl.load(index + H + j).to(tl.int64)
            q, e = tl.load(coef + Q + j), tl.load(coef + RAW + j)
            needed = (entry >= 0) & ((q != 0) | (e != 0) | (learned & (j == jv)))
            out = tl.zeros([BLOCK], tl.float32)
            for t in tl.static_range(len(outs)):
                inside = needed & (block >= 0) & (block < outs_at[5 * t + 4])
                at = entry * outs_at[5 * t] + block * outs_at[5 * t + 1]
                at += c * outs_at[5 * t + 2] + px * outs_at[5 * t + 3]
                loaded = tl.load(outs[t] + at, mask=valid & inside, other=0.0)
                out = tl.where(inside, loaded.to(tl.float32), out)
                block -= outs_at[5 * t + 4]
            denoised = add(denoised, q, out)
            raw = add(raw, e, out)
            if LEARNED:
                variance = tl.where(j == jv, out, variance)
        if LEARNED:
            if learned:
                scale = exponential(tl.load(coef + V0) + tl.load(coef + V1) * variance)
    # By comparisons, so that a nan passes.
    lo, hi = tl.load(coef + LO), tl.load(coef + HI)
    denoised = tl.where(denoised < lo, lo, denoised)
    denoised = tl.where(denoised > hi, hi, denoised) * tl.load(coef + SCALE)
    if denoised_ptr is not None:
        at = b * denoised_at[0] + c * denoised_at[1] + px * denoised_at[2]
        tl.store(denoised_ptr + at, denoised, mask=valid)

    z = ()
    for m in tl.static_range(M):
        used = (flags & (NORMAL << m)) != 0
        if noise is not None:
            at = b * noise_at[0] + c * noise_at[1] + px * noise_at[2]
            normal = tl.load(noise[m] + at, mask=valid & used, other=0.0)
        else:
            normal = tl.zeros([BLOCK], tl.float32)
            if used:
                normal = normals(
                    seed, key, tl.full((), m, tl.uint32), c, px,
                    program, channels, pixels, BLOCK, CHANNELS, ALIGNED,
                )  # fmt: skip
        z = z + (normal * scale,)

    new = ()
    for k in tl.static_range(K):
        total = state[k]
        if ((writes >> k) & 1) != 0:
            total = tl.zeros([BLOCK], tl.float32)
            for source in tl.static_range(K):
                total = add(total, tl.load(coef + A + k * SLOTS + source), state[source])
            total = add(total, tl.load(coef + D + k), denoised)
            total = add(total, tl.load(coef + E + k), raw)
            for m in tl.static_range(M):
                total = add(total, tl.load(coef + C + k * NORMALS + m), z[m])
            if k == 0 and mask_ptr is not None:
                if (flags & IS_MASKED) != 0:
                    u0, u1 = tl.load(coef + U0), tl.load(coef + U1)
                    if noise is not None:
                        at = b * noise_at[0] + c * noise_at[1] + px * noise_at[2]
                        normal = tl.load(noise[NORMALS] + at, mask=valid & (u1 != 0), other=0.0)
                    else:
                        normal = normals(
                            seed, key, tl.full((), NORMALS, tl.uint32), c, px,
                            program, channels, pixels, BLOCK, CHANNELS, ALIGNED,
                        )  # fmt: skip
                    at = b * known_at[0] + c * known_at[1] + px * known_at[2]
                    known = tl.load(known_ptr + at, mask=valid & (u0 != 0), other=0.0)
                    region = add(add(tl.zeros([BLOCK], tl.float32), u0, known), u1, normal)
                    at = b * mask_at[0] + c * mask_at[1] + px * mask_at[2]
                    mask = tl.load(mask_ptr + at, mask=valid, other=0.0)
                    total = mask * total + (1.0 - mask) * region
            tl.store(slots[k] + offset, total, mask=valid)
            if status_ptr is not None:
                bad = ~(tl.abs(total) < float("inf"))
                flag = status_ptr + b + tl.zeros([BLOCK], tl.int32)
                tl.store(flag, 1, mask=valid & bad)  # several lanes may write the same 1
        new = new + (total,)

    if net_in_ptr is not None:
        for i in tl.static_range(I):
            read = tl.load(index + READ + i)
            value = new[0]
            for k in tl.static_range(1, K):
                value = tl.where(read == k, new[k], value)
            value = (tl.load(coef + C_IN + i) * value).to(net_in_ptr.dtype.element_ty)
            at = i * net_in_at[1] + c * net_in_at[2] + px * net_in_at[3]
            for g in range(entries):
                entry = tl.load(dst_ptr + b * entries + g).to(tl.int64)
                pointer = net_in_ptr + entry * net_in_at[0] + at
                tl.store(pointer, value, mask=valid & (entry >= 0))
    if label_ptr is not None:
        if program == 0:
            label = tl.load(labels_ptr + r).to(label_ptr.dtype.element_ty)
            for g in range(entries):
                entry = tl.load(dst_ptr + b * entries + g).to(tl.int64)
                if entry >= 0:
                    tl.store(label_ptr + entry, label)


def objection_step(args: StepArgs) -> str | None:
    """Why this implementation cannot take args, or None."""
    if args.slots.dtype != torch.float32:
        return f"step: Triton keeps slots in float32 and these are {args.slots.dtype}"
    return objection(_step, "step", {name: (t, axis) for name, (t, axis) in _buffers(args).items()})


def bind_step(args: StepArgs) -> Launch:
    """The launch takes the network's outputs. Raises ValueError where there is an objection."""
    if reason := objection_step(args):
        raise ValueError(reason)
    ticket = torch.zeros_like(args.row) if args.ticket is None else args.ticket
    device = on_device(args.slots.device)
    prepared: dict[tuple, tuple[Callable, dict[str, Any]]] = {}

    def launch(outs: Sequence[Tensor] = ()) -> None:
        # Outputs alike in type and layout share everything but their addresses.
        alike = tuple([(out.dtype, out.shape, out.stride()) for out in outs])
        if alike not in prepared:
            grid, fixed = prepare(args, ticket, outs)
            prepared[alike] = _step[grid], fixed
        kernel, fixed = prepared[alike]
        with device:
            kernel(outs=tuple(outs) or None, **fixed)

    return launch


def prepare(
    args: StepArgs, ticket: Tensor, outs: Sequence[Tensor]
) -> tuple[tuple[int], dict[str, Any]]:
    """Grid and arguments of a launch with such outputs, all but `outs` themselves.

    Raises ValueError or TypeError where the outputs cannot be read.
    """
    args.check_outputs(outs)
    slots, channels = args.slots, args.slots.shape[2]
    layouts = {name: strides(t, axis) for name, (t, axis) in _buffers(args).items() if t is not None}
    layouts |= {t: strides(out, 1) for t, out in enumerate(outs)}
    for t, out in enumerate(outs):
        if layouts[t] is None:
            raise ValueError(
                f"the pixels of network output {t} {list(out.shape)} with strides "
                f"{list(out.stride())} have no single stride; make it contiguous or channels last"
            )
    drawn = args.noise is None and (args.normals > 0 or args.mask is not None)
    # Every slot takes a register per element.
    block = 1024 if len(slots) <= 2 else 512
    chosen = Cover.choose(slots.shape[2:], layouts.values(), block, drawn)

    def at(name: str | int, tensor: Tensor | None, axis: int = 0, blocks: bool = False) -> Any:
        """Strides of (sample or entry, channel block if asked for, c, px)."""
        if tensor is None:
            return None
        block_stride = (channels * layouts[name][0],) if blocks else ()
        return tensor.stride(axis), *block_stride, *chosen.steps(layouts[name])

    outs_at: tuple[int, ...] = ()
    for t, out in enumerate(outs):
        outs_at += (*at(t, out, blocks=True), out.shape[1] // channels)
    fixed = {
        "slots": tuple(slots),
        "slots_at": at("slots", slots, 1),
        "row_ptr": args.row,
        "seed_ptr": args.seed,
        "coef_ptr": args.table.coef,
        "index_ptr": args.table.index,
        "labels_ptr": args.table.label,
        "src_ptr": args.src,
        "dst_ptr": args.dst,
        "ticket_ptr": ticket,
        "status_ptr": args.status,
        "label_ptr": args.label,
        "outs_at": outs_at or None,
        "net_in_ptr": args.net_in,
        "net_in_at": at("net_in", args.net_in, blocks=True),
        "noise": None if args.noise is None else tuple(args.noise),
        "noise_at": at("noise", args.noise, 1),
        "mask_ptr": args.mask,
        "mask_at": at("mask", args.mask),
        "known_ptr": args.known,
        "known_at": at("known", args.known),
        "denoised_ptr": args.denoised,
        "denoised_at": at("denoised", args.denoised),
        **chosen.sizes,
        "outputs": 0 if args.src is None else args.src.shape[1],
        "entries": 0 if args.dst is None else args.dst.shape[1],
        "M": args.normals,
        "I": args.inputs,
        "LEARNED": args.learned,
        **chosen.constants,
    }
    return (slots.shape[1] * chosen.programs,), fixed


def _buffers(args: StepArgs) -> dict[str, tuple[Tensor | None, int]]:
    """The tensors that have pixels, each with its channel axis."""
    return {
        "slots": (args.slots, 2),
        "net_in": (args.net_in, 1),
        "noise": (args.noise, 2),
        "mask": (args.mask, 1),
        "known": (args.known, 1),
        "denoised": (args.denoised, 1),
    }
