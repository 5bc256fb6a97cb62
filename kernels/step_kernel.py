"""The kernel of `step` in Triton; step.py launches it.

One program updates BLOCK elements of one sample. What a row says is the same for the whole program,
so it is kept in scalars, and a term, a slot or a normal that the row leaves out costs a branch.
"""

import triton
import triton.language as tl

from ..ops import layout
from .cover import cover
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
INDEX, LABELS = tl.constexpr(layout.INDEX), tl.constexpr(layout.LABELS)
IS_LEARNED, IS_MASKED = tl.constexpr(layout.LEARNED), tl.constexpr(layout.MASKED)
NORMAL = tl.constexpr(layout.NORMAL)
END = tl.constexpr(2.0**63)  # of int64


@triton.jit
def add(total, weight, value):
    # A weight of zero leaves the value out: 0 * nan would be nan.
    return total + tl.where(weight != 0, weight * value, 0.0)


@triton.jit
def only(valid, condition):
    # Not `valid & condition`: the interpreter makes integers of a scalar condition.
    return tl.where(condition, valid, False)


@triton.jit
def report(flag_ptr, bad, BLOCK: tl.constexpr):
    """Sets the flag if a lane is bad. Four lanes are one thread's, which needs no shared memory."""
    bad = tl.max(bad.to(tl.int32).reshape(BLOCK // 4, 4), axis=1)
    tl.store(flag_ptr + tl.zeros([BLOCK // 4], tl.int32), 1, mask=bad != 0)


@triton.jit
def fetch(j, outputs, src, coef, index, jv, outs, outs_at, c, px, valid):
    """Output j of a sample: zeros where it is absent or the row has no use for it."""
    exists = j < outputs
    entry = tl.load(src + j, mask=exists, other=-1).to(tl.int64)
    block = tl.load(index + H + j, mask=exists, other=0).to(tl.int64)
    q = tl.load(coef + Q + j, mask=exists, other=0.0)
    e = tl.load(coef + RAW + j, mask=exists, other=0.0)
    needed = (entry >= 0) & ((q != 0) | (e != 0) | (j == jv))
    out = 0.0
    for t in tl.static_range(len(outs)):
        inside = needed & (block >= 0) & (block < outs_at[5 * t + 4])
        at = entry * outs_at[5 * t] + block * outs_at[5 * t + 1]
        at += c * outs_at[5 * t + 2] + px * outs_at[5 * t + 3]
        loaded = tl.load(outs[t] + at, mask=only(valid, inside), other=0.0)
        # A single tensor's as it is: to convert it here would be to wait for it.
        out = loaded if len(outs) == 1 else tl.where(inside, loaded.to(tl.float32), out)
        block -= outs_at[5 * t + 4]
    return out


@triton.jit
def normal(
    m: tl.constexpr, used, b, key, noise, noise_at, given_ptr, seed_ptr, c, px, valid,
    program, channels, pixels, BLOCK: tl.constexpr, CHANNELS: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    """Normal m of a sample, read or drawn; zeros where the row has no use for it."""
    z = tl.zeros([BLOCK], tl.float32)
    drawn = used
    if noise is not None:
        read = used
        if given_ptr is not None:
            given = tl.load(given_ptr + b)
            read, drawn = used & (given != 0), used & (given == 0)
        at = b * noise_at[0] + c * noise_at[1] + px * noise_at[2]
        z = tl.load(noise[m] + at, mask=only(valid, read), other=0.0)
    if noise is None or given_ptr is not None:
        if drawn:
            z = normals(
                tl.load(seed_ptr + b), key, tl.full((), m, tl.uint32), c, px,
                program, channels, pixels, BLOCK, CHANNELS, ALIGNED,
            )  # fmt: skip
    return z


@triton.jit
def write_label(to_ptr, label_ptr, dst, entries):
    """A row's label, into the entries that its sample fills."""
    label = tl.load(label_ptr)
    if to_ptr.dtype.element_ty == tl.int64:
        whole = (label >= -END) & (label < END)
        label = tl.where(whole, label, -END)
    label = label.to(to_ptr.dtype.element_ty)
    for g in range(entries):
        entry = tl.load(dst + g).to(tl.int64)
        if entry >= 0:
            tl.store(to_ptr + entry, label)


@triton.jit
def step(
    outs,  # a pointer for each tensor
    outs_at,  # for each its strides of (entry, block, c, px) and its number of blocks
    slots, slots_at,  # K pointers; strides of (sample, c, px)
    row_ptr, seed_ptr, coef_ptr, index_ptr, labels_ptr,
    src_ptr, dst_ptr, ticket_ptr, status_ptr, label_ptr, end_label_ptr,
    net_in_ptr, net_in_at,  # (entry, block, c, px)
    noise, noise_at, given_ptr,  # a pointer for each draw
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
    flags, key = tl.load(index + FLAGS), tl.load(index + KEY).to(tl.uint32)
    c, px, valid = cover(program, channels, pixels, elements, BLOCK, CHANNELS)
    offset = b * slots_at[0] + c * slots_at[1] + px * slots_at[2]

    state = ()
    for k in tl.static_range(K):
        needed = ((reads >> k) & 1) != 0
        state = state + (tl.load(slots[k] + offset, mask=only(valid, needed), other=0.0),)

    # Every program of the sample reads row[b], and the last of them to pass here replaces it. The
    # barrier: all warps have read. One lane takes the ticket and looks at it at the very end, so that
    # nothing waits for it; a scalar atomic would hold up the whole block.
    tl.debug_barrier()
    lane = tl.arange(0, BLOCK // 4)
    ticket = ticket_ptr + b + tl.zeros_like(lane)
    arrived = tl.atomic_add(ticket, 1, mask=lane == 0, sem="relaxed")

    jv = -1
    if LEARNED:
        jv = tl.where((flags & IS_LEARNED) != 0, tl.maximum(tl.load(index + JV), 0), -1)
    if outs is not None:
        # Two outputs ahead of the sum, or it would wait for memory once for the slots and again for
        # every output.
        src = src_ptr + b * outputs
        ahead = fetch(0, outputs, src, coef, index, jv, outs, outs_at, c, px, valid)
        ahead2 = fetch(1, outputs, src, coef, index, jv, outs, outs_at, c, px, valid)
    denoised = tl.zeros([BLOCK], tl.float32)
    raw = tl.zeros([BLOCK], tl.float32)
    for k in tl.static_range(K):
        denoised = add(denoised, tl.load(coef + P + k), state[k])
    scale = tl.full([BLOCK], 1.0, tl.float32)  # of the normals
    if outs is not None:
        variance = tl.zeros([BLOCK], tl.float32)
        for j in range(outputs):
            out = ahead.to(tl.float32)
            ahead = ahead2
            ahead2 = fetch(j + 2, outputs, src, coef, index, jv, outs, outs_at, c, px, valid)
            denoised = add(denoised, tl.load(coef + Q + j), out)
            raw = add(raw, tl.load(coef + RAW + j), out)
            if LEARNED:
                variance = tl.where(j == jv, out, variance)
        if LEARNED:
            if jv >= 0:
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
        drawn = normal(
            m, used, b, key, noise, noise_at, given_ptr, seed_ptr, c, px, valid,
            program, channels, pixels, BLOCK, CHANNELS, ALIGNED,
        )  # fmt: skip
        z = z + (drawn * scale,)

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
                    drawn = normal(
                        NORMALS, u1 != 0, b, key, noise, noise_at, given_ptr, seed_ptr, c, px, valid,
                        program, channels, pixels, BLOCK, CHANNELS, ALIGNED,
                    )  # fmt: skip
                    at = b * known_at[0] + c * known_at[1] + px * known_at[2]
                    known = tl.load(known_ptr + at, mask=only(valid, u0 != 0), other=0.0)
                    region = add(add(tl.zeros([BLOCK], tl.float32), u0, known), u1, drawn)
                    at = b * mask_at[0] + c * mask_at[1] + px * mask_at[2]
                    mask = tl.load(mask_ptr + at, mask=valid, other=0.0)
                    total = mask * total + (1.0 - mask) * region
            tl.store(slots[k] + offset, total, mask=valid)
            if status_ptr is not None:
                report(status_ptr + b, valid & ~(tl.abs(total) < float("inf")), BLOCK)
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
                tl.store(pointer, value, mask=only(valid, entry >= 0))
    if label_ptr is not None:
        if program == 0:
            write_label(label_ptr, labels_ptr + r * LABELS, dst_ptr + b * entries, entries)
            if end_label_ptr is not None:
                write_label(
                    end_label_ptr, labels_ptr + r * LABELS + 1, dst_ptr + b * entries, entries
                )
    last = (lane == 0) & (arrived == programs - 1)
    tl.store(row_ptr + b + tl.zeros_like(lane), tl.load(index + NEXT), mask=last)
    tl.store(ticket, 0, mask=last)
