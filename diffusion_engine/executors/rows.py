"""`RowTable`: the rows of plans, where the step reads them, and what the host has to know of each."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .. import checks
from ..ops import layout
from ..ops.brownian import BrownianArgs
from ..ops.step import Table
from ..plan import Plan, Row, brownian
from ..plan.table import Columns, pack, packed
from .packing import IDLE, Kinds


class BatchFull(ValueError):
    """A batch has no room for a job now, and would have once others are released."""


@dataclass(eq=False)
class Rows:
    """A range of the table: `users` seats run it, and while none does it waits for the next or makes room.

    plan     whose rows they are
    private  whether they are one seat's own, which may change them
    """

    first: int
    plan: Plan
    private: bool = False
    users: int = 1

    @property
    def end(self) -> int:
        return self.first + len(self.plan.rows)

    def rewritten(self, i: int, row: Row, at: int) -> Plan:
        """The plan with another row i, while the seat is at row `at` of the table.

        Raises ValueError where there is no row i, or its call is prepared already and would be another.
        """
        rows = self.plan.rows
        if not 0 <= checks.whole("i", i, 0, "the index of a row") < len(rows):
            raise ValueError(f"row {i} is none of the seat's: it has rows 0 to {len(rows) - 1}")
        same = (row.call, row.branches) == (rows[i].call, rows[i].branches)
        if 0 < i == at - self.first and not same:
            raise ValueError(
                f"the call of row {i} is prepared: it and the branches stay as they are; write a row before "
                "the one ahead of it runs"
            )
        return self.plan.replace_rows([*rows[:i], row, *rows[i + 1 :]])


@dataclass(eq=False)
class RowTable:
    """Plans in one table; their ranges are allocated and freed, and seats of one plan share one.

    table  on the device
    paths  what the op `brownian` reads of the same rows, where there is one
    kinds  what rows ask of a call
    next   [R + 1] of each row the one after it, -1 behind the last; the entry behind all rows is that of -1
    last   [R + 1] of each row whether it is the last of its plan
    kind   [R + 1] of each row what it asks of a call
    draws  [R + 1] of each row the normals it uses, bit m
    label  one that a row of the table gives its call
    """

    table: Table
    paths: BrownianArgs | None
    kinds: Kinds
    label: float = 0.0
    _held: dict[tuple[int, bool], Rows] = field(default_factory=dict)
    _private: list[Rows] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.table.label)
        self.next = np.full(count + 1, -1, np.intp)  # NumPy finds places by these faster
        self.last = np.zeros(count + 1, bool)
        self.kind = np.full(count + 1, IDLE, np.uint16)
        self.draws = np.zeros(count + 1, np.uint8)
        self._dtype = np.dtype("float64" if self.table.coef.dtype == torch.float64 else "float32")

    def hold(self, plan: Plan, follows_path: bool = False, private: bool = False) -> Rows:
        """The rows of a plan for one more seat. Raises BatchFull where there is no room.

        follows_path  whether the seat's noise is that of its Brownian path
        private       rows of the seat's own, for `write`
        """
        key = (id(plan), follows_path)
        if not private and (known := self._held.pop(key, None)) is not None:
            self._held[key] = known  # the last is the one that was asked for last
            known.users += 1
            return known
        made = Rows(self._room(len(plan.rows)), plan, private)
        self._load(made, follows_path)
        if private:
            self._private.append(made)
        else:
            self._held[key] = made
        return made

    def has(self, plan: Plan) -> bool:
        """Whether the plan's rows are here already."""
        return (id(plan), False) in self._held

    def free(self, rows: Rows) -> None:
        """One seat fewer runs these rows."""
        rows.users -= 1
        if rows.private:
            self._private.remove(rows)

    def write(self, rows: Rows, i: int, plan: Plan) -> None:
        """Puts row i of a plan in its place among a seat's own; the row before it prepares its call."""
        rows.plan, low = plan, max(0, i - 1)
        around = packed(plan.rows[low : i + 2], self._dtype)
        self._put(around, rows.first + low, i + 1 - low)
        self.kind[rows.first + i] = self.kinds.of(plan.branches[i])
        self.draws[rows.first + i] = plan.draws[i]

    def _room(self, count: int) -> int:
        """The first of so many free rows, after waiting ranges were dropped if need be."""
        while (first := self._gap(count)) is None:
            waiting = next((key for key, rows in self._held.items() if not rows.users), None)
            if waiting is None:
                raise BatchFull(
                    f"the batch has room for {len(self.table.label)} rows and none for {count} more now: "
                    "release a sample first, or make the batch with more rows"
                )
            del self._held[waiting]
        return first

    def _gap(self, count: int) -> int | None:
        end = 0
        for rows in sorted([*self._held.values(), *self._private], key=lambda rows: rows.first):
            if rows.first - end >= count:
                return end
            end = rows.end
        return end if len(self.table.label) - end >= count else None

    def _load(self, rows: Rows, follows_path: bool) -> None:
        plan, first = rows.plan, rows.first
        self._put(pack(plan, self._dtype), first, len(plan.rows))
        self.next[first : rows.end - 1] = np.arange(first + 1, rows.end)
        self.next[rows.end - 1] = -1
        self.last[first : rows.end] = False
        self.last[rows.end - 1] = True
        self.kind[first : rows.end] = [self.kinds.of(branches) for branches in plan.branches]
        self.draws[first : rows.end] = plan.draws
        call = plan.rows[-1].call
        self.label = call.label if call else self.label
        if self.paths is not None:
            kept = (self.paths.terms, self.paths.weight)
            if follows_path:
                for tensor, values in zip(kept, brownian.pack(plan), strict=True):
                    _upload(tensor[first : rows.end], values[:, : tensor.shape[1]])
            else:
                kept[0][first : rows.end].zero_()

    def _put(self, columns: Columns, first: int, count: int) -> None:
        """Copies the first `count` of some columns, whose rows follow one another, to the device."""
        index = columns.index[:count]
        follows = index[:, layout.NEXT] >= 0
        index = index.copy()
        index[follows, layout.NEXT] += first
        for kept, values in zip(
            self.table, (columns.coef[:count], index, columns.label[:count]), strict=True
        ):
            _upload(kept[first : first + count], values)


def _upload(kept: Tensor, values: np.ndarray) -> None:
    kept.copy_(torch.from_numpy(values), non_blocking=True)
