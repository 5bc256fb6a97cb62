"""Plans packed into the row tables that the op `step` reads: where host numbers become tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..ops import layout as at
from ..ops.step import Table
from . import Plan, Row


@dataclass(frozen=True)
class Arena:
    """Several plans in one table; plan i starts at row `first[i]`."""

    plans: tuple[Plan, ...]
    table: Table
    first: tuple[int, ...]

    @classmethod
    def of(cls, plans: Sequence[Plan], dtype: torch.dtype, device: torch.device) -> Arena:
        """Packs the plans; float32 (or float64 for the reference) tables on the device."""
        parts = [pack(plan, dtype) for plan in plans]
        ends = np.cumsum([len(plan.rows) for plan in plans]).tolist()
        first = (0, *ends[:-1])
        coef, index, label = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        for low, high in zip(first, ends, strict=True):
            index[low : high - 1, at.NEXT] += low
        tensors = (torch.from_numpy(a).to(device) for a in (coef, index, label))
        return cls(tuple(plans), Table(*tensors), first)

    @staticmethod
    def empty(rows: int, dtype: torch.dtype, device: torch.device) -> Table:
        """Tables with room for so many rows."""
        return Table(
            torch.zeros(rows, at.COEF, dtype=dtype, device=device),
            torch.zeros(rows, at.INDEX, dtype=torch.int32, device=device),
            torch.zeros(rows, dtype=torch.float64, device=device),
        )


def pack(plan: Plan, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The columns coef, index and label of a plan that starts at row 0, kept with the plan: they take
    some 50 us a row to make. They are not to be written."""
    if dtype not in plan.packed:
        count = len(plan.rows)
        coef, index, label = (t.numpy() for t in Arena.empty(count, dtype, torch.device("cpu")))
        for i, row in enumerate(plan.rows):
            after = plan.rows[i + 1] if i + 1 < count else None
            pack_row(row, after, coef[i], index[i])
            index[i, at.NEXT] = i + 1 if after else -1
            label[i] = after.call.label if after and after.call else 0.0
        plan.packed[dtype] = coef, index, label
    return plan.packed[dtype]


def pack_row(row: Row, after: Row | None, coef: np.ndarray, index: np.ndarray) -> None:
    """Writes one row's columns; `after` is the row whose call this one prepares."""
    coef[at.P : at.P + len(row.p)] = row.p
    coef[at.Q : at.Q + len(row.q)] = row.q
    coef[at.RAW : at.RAW + len(row.e)] = row.e
    coef[at.LO], coef[at.HI] = row.clip or (-np.inf, np.inf)
    coef[at.SCALE] = row.scale
    column = {"D": at.D, "raw": at.E}
    for k, update in row.new.items():
        for symbol, weight in update:
            if symbol[0] == "S":
                coef[at.A + k * at.SLOTS + int(symbol[1:])] = weight
            elif symbol[0] == "z":
                coef[at.C + k * at.NORMALS + int(symbol[1:])] = weight
            else:
                coef[column[symbol] + k] = weight
        index[at.WRITES] |= 1 << k
    index[at.H : at.H + len(row.channel_blocks)] = row.channel_blocks
    index[at.KEY] = np.uint32(row.key).astype(np.int32)
    index[at.JV] = -1
    if row.learned is not None:
        coef[at.V0], coef[at.V1], index[at.JV] = row.learned
        index[at.FLAGS] |= at.LEARNED
    if row.known is not None:
        coef[at.U0], coef[at.U1] = row.known
        index[at.FLAGS] |= at.MASKED
    if after is not None and after.call is not None:
        coef[at.C_IN : at.C_IN + len(after.call.c_in)] = after.call.c_in
        index[at.READ : at.READ + len(after.call.read)] = after.call.read
    _derive(row, after, coef, index)


def _derive(row: Row, after: Row | None, coef: np.ndarray, index: np.ndarray) -> None:
    """The bits that spare a kernel from testing every weight, after rounding to the table's dtype."""
    mixing = coef[at.A : at.D].reshape(at.SLOTS, at.SLOTS)
    reads = (mixing != 0).any(axis=0) | (coef[at.P : at.Q] != 0)
    if after is not None and after.call is not None:
        for k in after.call.read:
            reads[k] |= k not in row.new
    index[at.READS] = sum(1 << k for k in range(at.SLOTS) if reads[k])
    if coef[at.D : at.E].any():
        index[at.FLAGS] |= at.DENOISED
    if coef[at.E : at.C].any():
        index[at.FLAGS] |= at.RAW_USED
    for m in range(at.NORMALS):
        if coef[at.C + m : at.C_IN : at.NORMALS].any():
            index[at.FLAGS] |= at.NORMAL << m
