"""`RowTable`: the rows of plans, where the step reads them, and what the host has to know of each."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..ops import layout
from ..ops.brownian import BrownianArgs
from ..ops.step import Table
from ..plan import Plan, Row, brownian
from ..plan.table import Columns, pack, pack_row
from . import guiding
from .packing import IDLE, Kinds

OWN = 1024  # rows of led seats that are kept packed


class BatchFull(ValueError):
    """A batch has no room for a job now, and would have once others are released."""


@dataclass(eq=False)
class Rows:
    """A range of the table: `users` seats run it, and while none does it waits for the next or makes room.

    plan  whose rows they are
    """

    first: int
    plan: Plan
    users: int = 1

    @property
    def end(self) -> int:
        return self.first + len(self.plan.rows)


@dataclass(eq=False)
class RowTable:
    """Plans in one table; their ranges are allocated and freed, and seats of one plan share one. Behind them
    each seat has a row of its own, which is written anew for every step of a seat that is led.

    table  on the device
    seats  how many have a row of their own
    paths  what the op `brownian` reads of the same rows, where there is one
    kinds  what rows ask of a call
    guides what guides rows between their call and the step (guiding.py), where something may
    next   [R + 1] of each row the one after it, -1 behind the last; the entry behind all rows is that of -1
    last   [R + 1] of each row whether it is the last of its plan
    kind   [R + 1] of each row what it asks of a call
    draws  [R + 1] of each row the normals it uses, bit m
    labels  those that a row of the table gives its call: where its step starts and where it ends
    """

    table: Table
    seats: int
    paths: BrownianArgs | None
    kinds: Kinds
    guides: Tensor | None = None
    labels: tuple[float, float] = (0.0, 0.0)
    _held: dict[tuple[int, bool], Rows] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.table.label)
        self._own: dict[tuple[int, int], tuple[Row, Row | None, Columns]] = {}
        self._shared = count - self.seats
        self.next = np.full(count + 1, -1, np.intp)  # NumPy finds places by these faster
        self.last = np.zeros(count + 1, bool)
        self.kind = np.full(count + 1, IDLE, np.uint16)
        self.draws = np.zeros(count + 1, np.uint8)
        self._dtype = np.dtype("float64" if self.table.coef.dtype == torch.float64 else "float32")

    def hold(self, plan: Plan, follows_path: bool = False) -> Rows:
        """The rows of a plan for one more seat. Raises BatchFull where there is no room.

        follows_path  whether the seat's noise is that of its Brownian path
        """
        key = (id(plan), follows_path)
        if (known := self._held.pop(key, None)) is not None:
            self._held[key] = known  # the last is the one that was asked for last
            known.users += 1
            return known
        made = Rows(self._room(len(plan.rows)), plan)
        self._load(made, follows_path)
        self._held[key] = made
        return made

    def own(self, seat: int, plan: Plan) -> Rows:
        """The row of a seat's own.

        plan  whose room it takes
        """
        return Rows(self._shared + seat, plan)

    def has(self, plan: Plan) -> bool:
        """Whether the plan's rows are here already."""
        return (id(plan), False) in self._held

    def free(self, rows: Rows) -> None:
        """One seat fewer runs these rows."""
        rows.users -= 1

    def write(self, rows: Rows, row: Row, then: Row | None) -> None:
        """Makes a row the seat's own one, which leads back to itself, or to the end.

        then  the row whose call it prepares, None at the end
        """
        self._put(self._packed(row, then), rows.first)
        if self.guides is not None:
            _upload(self.guides[rows.first : rows.first + 1], guiding.packed([row]))
        self.next[rows.first] = -1 if then is None else rows.first
        if then is not None:
            self.kind[rows.first] = self.kinds.of(then.branches)

    def _packed(self, row: Row, then: Row | None) -> Columns:
        """The columns of a row that leads back to itself; seats that walk one plan ask for the same again."""
        key = id(row), id(then)
        if key in self._own:
            return self._own[key][2]
        made = Columns.empty(1, self._dtype)
        pack_row(row, then, made.coef[0], made.index[0])
        if then is not None:
            made.index[0, layout.NEXT] = 0
            made.label[0] = then.call.labels if then.call else 0.0
        if len(self._own) >= OWN:
            self._own.clear()
        self._own[key] = row, then, made  # who is held keeps its id
        return made

    def _room(self, count: int) -> int:
        """The first of so many free rows, after waiting ranges were dropped if need be."""
        while (first := self._gap(count)) is None:
            waiting = next((key for key, rows in self._held.items() if not rows.users), None)
            if waiting is None:
                raise BatchFull(
                    f"the batch has room for {self._shared} rows and none for {count} more now: "
                    "release a sample first, or make the batch with more rows"
                )
            del self._held[waiting]
        return first

    def _gap(self, count: int) -> int | None:
        end = 0
        for rows in sorted(self._held.values(), key=lambda rows: rows.first):
            if rows.first - end >= count:
                return end
            end = rows.end
        return end if self._shared - end >= count else None

    def _load(self, rows: Rows, follows_path: bool) -> None:
        plan, first = rows.plan, rows.first
        self._put(pack(plan, self._dtype), first)
        if self.guides is not None:
            _upload(self.guides[first : rows.end], guiding.packed(plan.rows))
        self.next[first : rows.end - 1] = np.arange(first + 1, rows.end)
        self.next[rows.end - 1] = -1
        self.last[first : rows.end] = False
        self.last[rows.end - 1] = True
        self.kind[first : rows.end] = [self.kinds.of(branches) for branches in plan.branches]
        self.draws[first : rows.end] = plan.draws
        call = plan.rows[-1].call
        self.labels = call.labels if call else self.labels
        if self.paths is not None:
            kept = (self.paths.terms, self.paths.weight)
            if follows_path:
                for tensor, values in zip(kept, brownian.pack(plan), strict=True):
                    _upload(tensor[first : rows.end], values[:, : tensor.shape[1]])
            else:
                kept[0][first : rows.end].zero_()

    def _put(self, columns: Columns, first: int) -> None:
        """Copies columns to the device, from row `first` on."""
        index = columns.index.copy()
        index[index[:, layout.NEXT] >= 0, layout.NEXT] += first
        for kept, values in zip(self.table, (columns.coef, index, columns.label), strict=True):
            _upload(kept[first : first + len(index)], values)


def _upload(kept: Tensor, values: np.ndarray) -> None:
    kept.copy_(torch.from_numpy(values), non_blocking=True)
