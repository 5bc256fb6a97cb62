"""The op `step`: one row of every sample's own plan, in one pass. This file says what it does and takes;
step_reference.py is its definition in torch.

For every sample b whose row r = row[b] is not negative, with that row's fields (plan.py, layout.py):

    out[j]    = channel block H[j] of entry src[b, j] of the network's outputs; absent where src = -1
    denoised  = SCALE * clip(sum_k P[k] S[k] + sum_j Q[j] out[j], LO, HI)
    raw       = sum_j RAW[j] out[j]
    z[m]      = normal m of (seed[b], KEY), or noise[m] where given; learned variance: * exp(V0 + V1 out[JV])
    S'[k]     = sum_l A[k,l] S[l] + D[k] denoised + E[k] raw + sum_m C[k,m] z[m]
    S'[0]     = mask S'[0] + (1 - mask) (U0 known + U1 z[2])            on rows with the MASKED flag
    net_in[dst[b, g], block i] = cast(C_IN[i] S'[READ[i]])
    label[dst[b, g]] = labels[r, 0] ; end_label[dst[b, g]] = labels[r, 1]
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
from .written import check_written

Launch = Callable[[Sequence[Tensor]], None]

NETWORK_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LABEL_DTYPES = (torch.float32, torch.float64, torch.int64)


class Table(NamedTuple):
    """Packed rows: coef [R, COEF] like the slots, index [R, INDEX] int32, label [R, LABELS] float64."""

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
    end_label  [N] like label, written, of networks that are told where their step ends
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
    end_label: Tensor | None = None
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
        _check("table.label", label, (rows, at.LABELS), (torch.float64,))
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
        if self.end_label is not None:
            if self.label is None:
                raise ValueError("end_label is written beside label, which is missing")
            _check("end_label", self.end_label, tuple(self.label.shape), (self.label.dtype,))
        devices = {t.device for t in self.tensors()}
        if len(devices) > 1:
            raise ValueError(
                f"all tensors of a step lie on one device, got {sorted(map(str, devices))}"
            )
        names = ("slots", "row", "net_in", "label", "end_label", "denoised", "status", "ticket")
        check_written("step", **{name: getattr(self, name) for name in names})

    def images(self) -> dict[str, Tensor]:
        """The tensors [B, C, *pixel] except the outputs; those of equal layouts are given once."""
        names = ("net_in", "mask", "known", "denoised")
        found = {"slots": self.slots[0]}
        found |= {name: t for name in names if (t := getattr(self, name)) is not None}
        if self.noise is not None and len(self.noise):
            found["noise"] = self.noise[0]
        return found

    def small(self) -> dict[str, Tensor]:
        """The tensors of numbers for each sample, row or entry."""
        names = ("row", "seed", "src", "dst", "label", "end_label", "given", "status", "ticket")
        found = {name: t for name in names if (t := getattr(self, name)) is not None}
        return found | self.table._asdict()

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
