"""The op `step`: one row of every sample's own plan, in one pass. This file defines it.

For every sample b whose row r = row[b] is not negative, with that row's fields (plan.py, layout.py):

    out[j]    = channel block H[j] of entry src[b, j] of the network's outputs; absent where src = -1
    denoised  = SCALE * clip(sum_k P[k] S[k] + sum_j Q[j] out[j], LO, HI)
    raw       = sum_j RAW[j] out[j]
    z[m]      = normal m of (seed[b], KEY), or noise[m] where given; learned variance: * exp(V0 + V1 out[JV])
    S'[k]     = sum_l A[k,l] S[l] + D[k] denoised + E[k] raw + sum_m C[k,m] z[m]
    S'[0]     = mask S'[0] + (1 - mask) (U0 known + U1 z[2])            on rows with the MASKED flag
    net_in[dst[b, g], block i] = cast(C_IN[i] S'[READ[i]]) ; label[dst[b, g]] = labels[r]
    status[b] = 1 if a written value is not finite ; row[b] = NEXT

Sums run in the written order from +0, one rounding for each product and each addition. A term whose
coefficient is 0 is not read. A slot that WRITES leaves out is neither read for its own sake nor
written. All new slots are made from the old ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from . import layout as at
from . import philox
from .written import check_written

Launch = Callable[[Sequence[Tensor]], None]

NETWORK_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LABEL_DTYPES = (torch.float32, torch.float64, torch.int64)


class Table(NamedTuple):
    """Packed rows: coef [R, COEF] like the slots, index [R, INDEX] int32, label [R] float64."""

    coef: Tensor
    index: Tensor  # type: ignore[assignment]
    label: Tensor


@dataclass(frozen=True, eq=False)
class StepArgs:
    """The buffers of a run, checked once; the outputs of the network are given at each launch.

    slots     [K, B, C, *pixel] float32, read and written; float64 on the reference only. Any dense
              layout whose pixels have one stride (contiguous or channels last).
    row       [B] int32, read and written: each sample's row, -1 leaves the sample alone
    seed      [B] int64
    table     the rows
    src       [B, J] int32, entry of the network's batch that holds output j, -1 where there is none
    dst       [B, G] int32, entries that the sample fills for the next call, -1 for none
    net_in    [N, >= inputs * C, *pixel] float32, bfloat16, float16 or the slots' dtype, written at channels
              [0, inputs * C); further channels are left alone
    label     [N] float32, float64 or int64, written; as int64 what is no such number is -2^63
    noise     [>= normals, B, C, *pixel] float32, read instead of drawing; index 2 is the known
              region's
    given     [B] int32, 1 where the sample reads `noise`, 0 where it draws its own; None: all read it
    mask      [B, C, *pixel] float32, 1 where the sample is free, 0 where it is `known`
    known     [B, C, *pixel] float32
    denoised  [B, C, *pixel] float32, written (float64 with float64 slots)
    status    [B] int32, set to 1 where a written value was not finite, never cleared
    ticket    [B] int32 zeros, scratch of the GPU kernels, left zero
    normals   how many normals any row uses, 0 to 2
    inputs    how many slots the network reads, 0 to 2
    learned   whether any row uses the learned variance

    Raises ValueError on a wrong shape or layout and TypeError on a wrong dtype.
    """

    slots: Tensor
    row: Tensor
    seed: Tensor
    table: Table
    src: Tensor | None = None
    dst: Tensor | None = None
    net_in: Tensor | None = None
    label: Tensor | None = None
    noise: Tensor | None = None
    given: Tensor | None = None
    mask: Tensor | None = None
    known: Tensor | None = None
    denoised: Tensor | None = None
    status: Tensor | None = None
    ticket: Tensor | None = None
    normals: int = at.NORMALS
    inputs: int = 1
    learned: bool = False

    def __post_init__(self) -> None:
        slots, (coef, index, label) = self.slots, self.table
        if slots.ndim < 3 or not 1 <= slots.shape[0] <= at.SLOTS:
            raise ValueError(
                f"slots are [1..{at.SLOTS}, batch, channels, *pixel], got {list(slots.shape)}"
            )
        batch, rows = slots.shape[1], coef.shape[0]
        state = slots.shape[1:]
        if not 0 <= self.normals <= at.NORMALS or not 0 <= self.inputs <= at.INPUTS:
            raise ValueError(f"normals={self.normals}, inputs={self.inputs}: both are 0, 1 or 2")
        _check("slots", slots, None, (torch.float32, torch.float64))
        _check("row", self.row, (batch,), (torch.int32,))
        _check("seed", self.seed, (batch,), (torch.int64,))
        _check("table.coef", coef, (rows, at.COEF), (slots.dtype,))
        _check("table.index", index, (rows, at.INDEX), (torch.int32,))
        _check("table.label", label, (rows,), (torch.float64,))
        for name in ("mask", "known"):
            _check(name, getattr(self, name), state, (torch.float32,))
        _check("denoised", self.denoised, state, (slots.dtype,))
        for name in ("given", "status", "ticket"):
            _check(name, getattr(self, name), (batch,), (torch.int32,))
        for name in ("src", "dst"):
            _check(name, getattr(self, name), (batch, None), (torch.int32,))
        if (self.mask is None) != (self.known is None):
            raise ValueError("mask and known come together; one of them is missing")
        if self.src is not None and self.src.shape[1] > at.OUTPUTS:
            raise ValueError(f"src has {self.src.shape[1]} outputs; a row takes {at.OUTPUTS}")
        if self.noise is not None:
            draws = self.normals if self.mask is None else at.NORMALS + 1
            _check("noise", self.noise, (None, *state), (torch.float32,))
            if self.noise.shape[0] < draws:
                raise ValueError(f"noise holds {self.noise.shape[0]} draws, {draws} are needed")
        elif self.given is not None:
            raise ValueError("given says which samples read noise, which is missing")
        if self.net_in is not None:
            if self.dst is None or self.inputs == 0:
                raise ValueError("net_in is written through dst with inputs >= 1")
            _check("net_in", self.net_in, (None, None, *state[2:]), (*NETWORK_DTYPES, slots.dtype))
            if self.net_in.shape[1] < self.inputs * state[1]:
                raise ValueError(
                    f"net_in has {self.net_in.shape[1]} channels; {self.inputs} x {state[1]} are needed"
                )
        if self.label is not None:
            _check("label", self.label, (None,), LABEL_DTYPES)
        devices = {t.device for t in self.tensors()}
        if len(devices) > 1:
            raise ValueError(
                f"all tensors of a step lie on one device, got {sorted(map(str, devices))}"
            )
        names = ("slots", "row", "net_in", "label", "denoised", "status", "ticket")
        check_written("step", **{name: getattr(self, name) for name in names})

    def tensors(self) -> list[Tensor]:
        """Every tensor that was given."""
        fields = (*vars(self).values(), *self.table)
        return [t for t in fields if isinstance(t, Tensor)]

    def check_outputs(self, outs: Sequence[Tensor]) -> None:
        """Raises unless the network's outputs have the device, shapes and dtypes that a launch can read."""
        if len(outs) > at.TENSORS:
            raise ValueError(
                f"the network returned {len(outs)} tensors; at most {at.TENSORS} are read"
            )
        if outs and self.src is None:
            raise ValueError("the network's outputs are read through src, which is missing")
        channels, pixel = self.slots.shape[2], self.slots.shape[3:]
        for out in outs:
            _check("network output", out, (None, None, *pixel), (*NETWORK_DTYPES, torch.float64))
            if out.device != self.slots.device:
                raise ValueError(
                    f"a network output is on {out.device}, slots on {self.slots.device}"
                )
            if out.shape[1] % channels or out.shape[1] == 0:
                raise ValueError(
                    f"a network output has {out.shape[1]} channels; a multiple of {channels} is needed"
                )


def _check(name: str, tensor: Tensor | None, shape: tuple | None, dtypes: tuple) -> None:
    if tensor is None:
        return
    if tensor.dtype not in dtypes:
        allowed = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise TypeError(
            f"{name} is {str(tensor.dtype).removeprefix('torch.')}; it has to be {allowed}"
        )
    if shape is None:
        return
    fits = len(shape) == tensor.ndim and all(
        want is None or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name} has shape {list(tensor.shape)}; [{wanted}] is needed")


def bind_reference(args: StepArgs) -> Launch:
    """The definition in plain torch: float32 or float64, any device."""

    def launch(outs: Sequence[Tensor] = ()) -> None:
        args.check_outputs(outs)
        _reference(args, outs)

    return launch


def _reference(args: StepArgs, outs: Sequence[Tensor]) -> None:
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
    for g in range(args.dst.shape[1]):
        entry = args.dst[:, g].long()
        valid = active & (entry >= 0)
        if args.label is not None:
            args.label[entry[valid]] = label[valid]
        for i in range(args.inputs if args.net_in is not None else 0):
            read = index[:, at.READ + i].long()
            value = coef[:, at.C_IN + i].view(-1, 1, 1) * new[read, samples]
            block = args.net_in[:, i * channels : (i + 1) * channels]  # type: ignore[index]
            value = value.to(block.dtype).reshape(-1, *block.shape[1:])
            block[entry[valid]] = value[valid]
