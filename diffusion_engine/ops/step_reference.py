"""The definition of the op `step` in plain torch; step.py says what it does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import layout as at
from . import philox
from .op import Op, Operator
from .registry import resolve
from .step import Launch, StepArgs, Table


def bind(args: StepArgs) -> Launch:
    """Float32 or float64, any device."""

    def launch(outs: Sequence[Tensor] = ()) -> None:
        args.check_outputs(outs)
        _step(args, outs)

    return launch


def _step(args: StepArgs, outs: Sequence[Tensor]) -> None:
    slots = args.slots
    count, batch = slots.shape[:2]
    active = args.row >= 0
    r = args.row.clamp(min=0).long()
    coef, index = args.table.coef[r], args.table.index[r]

    def column(c: int) -> Tensor:
        return coef[:, c].view(batch, 1, 1)

    def flagged(bit: int) -> Tensor:
        return ((index[:, at.FLAGS] & bit) != 0).view(batch, 1, 1)

    def flat(t: Tensor) -> Tensor:
        return t.reshape(*t.shape[: t.ndim - slots.ndim + 3], -1).to(slots.dtype)

    def add(total: Tensor, weight: Tensor, value: Tensor) -> Tensor:
        # A weight of zero leaves the value unread: 0 * nan would be nan.
        return total + torch.where(weight != 0, weight * value, torch.zeros_like(total))

    state = [flat(slots[k]) for k in range(count)]
    zero = torch.zeros_like(state[0])
    outputs = _gather(args, [flat(o) for o in outs], index)

    denoised, raw = zero, zero
    for k in range(count):
        denoised = add(denoised, column(at.P + k), state[k])
    for j, out in enumerate(outputs):
        denoised = add(denoised, column(at.Q + j), out)
        raw = add(raw, column(at.RAW + j), out)
    lo, hi = column(at.LO), column(at.HI)
    denoised = torch.where(denoised < lo, lo, denoised)
    denoised = torch.where(denoised > hi, hi, denoised) * column(at.SCALE)

    drawn = range(args.normals) if args.mask is None else (*range(args.normals), at.NORMALS)
    z = {m: flat(_normal(args, index[:, at.KEY], m)) for m in drawn}
    if args.learned and outputs:
        jv = index[:, at.JV].clamp(min=0).long()
        variance = torch.stack(outputs)[jv, torch.arange(batch, device=jv.device)]
        exponent = column(at.V0) + column(at.V1) * variance
        scale = philox.exp(exponent) if slots.dtype == torch.float32 else exponent.exp()
        for m in range(args.normals):
            z[m] = torch.where(flagged(at.LEARNED), z[m] * scale, z[m])

    new = []
    for k in range(count):
        total = zero
        for source in range(count):
            total = add(total, column(at.A + k * at.SLOTS + source), state[source])
        total = add(total, column(at.D + k), denoised)
        total = add(total, column(at.E + k), raw)
        for m in range(args.normals):
            total = add(total, column(at.C + k * at.NORMALS + m), z[m])
        if k == 0 and args.mask is not None and args.known is not None:
            mask = flat(args.mask)
            region = add(zero, column(at.U0), flat(args.known))
            region = add(region, column(at.U1), z[at.NORMALS])
            total = torch.where(flagged(at.MASKED), mask * total + (1.0 - mask) * region, total)
        written = active & ((index[:, at.WRITES] >> k & 1) != 0)
        new.append(torch.where(written.view(batch, 1, 1), total, state[k]))
        if args.status is not None:
            bad = ~torch.isfinite(total).flatten(1).all(dim=1)
            args.status.masked_fill_(written & bad, 1)
    for k in range(count):
        slots[k].copy_(new[k].reshape(slots.shape[1:]))

    if args.denoised is not None:
        shown = torch.where(active.view(batch, 1, 1), denoised, flat(args.denoised))
        args.denoised.copy_(shown.reshape(args.denoised.shape))
    if args.dst is not None:
        _fill(args, torch.stack(new), active, coef, index, args.table.label[r])
    args.row.copy_(torch.where(active, index[:, at.NEXT], args.row))


def _gather(args: StepArgs, outs: list[Tensor], index: Tensor) -> list[Tensor]:
    """Output j of every sample, [B, C, pixels]; zeros where it is absent."""
    if not outs or args.src is None:
        return []
    batch, channels = args.slots.shape[1:3]
    gathered = []
    for j in range(args.src.shape[1]):
        entry, block = args.src[:, j].long(), index[:, at.H + j].long()
        total = torch.zeros_like(args.slots[0]).reshape(batch, channels, -1)
        first = 0
        for out in outs:
            blocks = out.shape[1] // channels
            inside = (entry >= 0) & (block >= first) & (block < first + blocks)
            views = out.reshape(out.shape[0], blocks, channels, -1)
            picked = views[entry.clamp(min=0), (block - first).clamp(0, blocks - 1)]
            total = torch.where(inside.view(-1, 1, 1), picked, total)
            first += blocks
        gathered.append(total)
    return gathered


def _normal(args: StepArgs, key: Tensor, m: int) -> Tensor:
    if args.noise is not None and args.given is None:
        return args.noise[m]
    shape = args.slots.shape[1:]
    drawn = philox.normals(args.seed, key, m, shape[1:].numel()).reshape(shape)
    if args.noise is None or args.given is None:
        return drawn
    return torch.where((args.given != 0).view(-1, *[1] * len(shape[1:])), args.noise[m], drawn)


def _label(label: Tensor, dtype: torch.dtype) -> Tensor:
    """In the network's dtype; as int64 what is no such number is -2^63, as on every backend."""
    if dtype == torch.int64:
        label = torch.where((label >= -(2.0**63)) & (label < 2.0**63), label, -(2.0**63))
    return label.to(dtype)


def _fill(
    args: StepArgs, new: Tensor, active: Tensor, coef: Tensor, index: Tensor, label: Tensor
) -> None:
    """Writes the next network inputs and labels."""
    assert args.dst is not None
    channels = args.slots.shape[2]
    samples = torch.arange(args.slots.shape[1], device=new.device)
    if args.label is not None:
        label = _label(label, args.label.dtype)
    told = [t for t in (args.label, args.end_label) if t is not None]
    for g in range(args.dst.shape[1]):
        entry = args.dst[:, g].long()
        valid = active & (entry >= 0)
        for column, kept in enumerate(told):
            kept[entry[valid]] = label[valid, column]
        for i in range(args.inputs if args.net_in is not None else 0):
            read = index[:, at.READ + i].long()
            value = coef[:, at.C_IN + i].view(-1, 1, 1) * new[read, samples]
            block = args.net_in[:, i * channels : (i + 1) * channels]  # type: ignore[index]
            value = value.to(block.dtype).reshape(-1, *block.shape[1:])
            block[entry[valid]] = value[valid]


def plain(device: torch.device) -> StepArgs:
    """A sample that is at no row."""
    table = Table(
        torch.zeros(1, at.COEF, device=device),
        torch.zeros(1, at.INDEX, dtype=torch.int32, device=device),
        torch.zeros(1, at.LABELS, dtype=torch.float64, device=device),
    )
    row = torch.full((1,), -1, dtype=torch.int32, device=device)
    seed = torch.zeros(1, dtype=torch.int64, device=device)
    return StepArgs(torch.zeros(1, 1, 1, 2, 2, device=device), row, seed, table)


SCHEMA = (
    "step(Tensor(a!) slots, Tensor(b!) row, Tensor seed, Tensor coef, Tensor index, Tensor labels, "
    "Tensor[] outs, *, Tensor? src=None, Tensor? dst=None, Tensor(c!)? net_in=None, "
    "Tensor(d!)? label=None, Tensor? noise=None, Tensor? given=None, Tensor? mask=None, "
    "Tensor? known=None, Tensor(e!)? denoised=None, Tensor(f!)? status=None, "
    "Tensor(g!)? ticket=None, Tensor(h!)? end_label=None, int normals=2, int inputs=1, "
    "bool learned=False) -> ()"
)


def _args(
    slots: Tensor, row: Tensor, seed: Tensor, coef: Tensor, index: Tensor, labels: Tensor,
    outs: Sequence[Tensor], **others: Tensor | int | bool | None,
) -> StepArgs:  # fmt: skip
    args = StepArgs(slots, row, seed, Table(coef, index, labels), **others)  # type: ignore[arg-type]
    args.check_outputs(outs)
    return args


def _run(*tensors: Tensor, **others: Tensor | int | bool | None) -> None:
    resolve("step", "auto", _args(*tensors, **others))(tensors[6])  # type: ignore[arg-type]


def _fake(*tensors: Tensor, **others: Tensor | int | bool | None) -> None:
    _args(*tensors, **others)  # type: ignore[arg-type]


OP = Op(bind=bind, plain=plain, operators=(Operator(SCHEMA, _run, _fake),))
