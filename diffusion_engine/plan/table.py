"""Rows packed into the columns that the op `step` reads (ops/layout.py). Host only, NumPy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..ops import layout as at
from .plan import Plan, Row


class Columns(NamedTuple):
    """Packed rows: coef [R, COEF] float32 or float64, index [R, INDEX] int32, label [R, LABELS] float64."""

    coef: np.ndarray
    index: np.ndarray  # type: ignore[assignment]
    label: np.ndarray

    @classmethod
    def empty(cls, rows: int, dtype: np.dtype) -> Columns:
        """Of so many rows, each the last of a run."""
        index = np.zeros((rows, at.INDEX), np.int32)
        index[:, at.NEXT] = -1
        return cls(np.zeros((rows, at.COEF), dtype), index, np.zeros((rows, at.LABELS)))


def pack(plan: Plan, dtype: np.dtype) -> Columns:
    """The columns of a plan whose rows follow one another from 0, kept with the plan: they take some 50 us
    a row to make. They are not to be written."""
    if dtype not in plan.packed:
        plan.packed[dtype] = packed(plan.rows, dtype)
    return plan.packed[dtype]


def packed(rows: tuple[Row, ...], dtype: np.dtype) -> Columns:
    """The columns of rows that follow one another from 0."""
    made = Columns.empty(len(rows), dtype)
    coef, index, label = made
    for i, row in enumerate(rows):
        after = rows[i + 1] if i + 1 < len(rows) else None
        pack_row(row, after, coef[i], index[i])
        if after is not None:
            index[i, at.NEXT] = i + 1
            label[i] = after.call.labels if after.call else 0.0
    return made


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
