"""The stage between the network's call and the step that guides by numbers of each sample (guiders/).

A row that a guider guides has the weights of each branch alone. The stage copies the row of every seat into
the seat's own row, gives the outputs there the weights that the guider's rule finds from the sums of the
sample's outputs, and points the seats of guided rows at it; what it says of the row after leads back to the
plan. All of it is data on the device, without a branch and without reading back, so a graph may record it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..guiders import NUMBERS, kind
from ..ops import layout as at
from ..ops.norms import SUMS, NormsArgs
from ..ops.quantile import QuantileArgs
from ..ops.step import StepArgs
from ..plan import Row
from ..plan.guidance import CONDITIONAL, UNCONDITIONAL

# Columns of the table that says of every row what guides it, [rows, WIDTH] float64.
KIND, SCALE, RATIO, OPTIONS = 0, 1, 2, 3  # RATIO: e / q of an output
SIDES = OPTIONS + 4  # of each output: whose weights it takes
WIDTH = SIDES + at.OUTPUTS
OWN, WITH, WITHOUT = 0, 1, 2  # its own, those of the condition's output, those of the one without

Resolve = Callable[[str, str, Any], Callable[..., Any]]


def packed(rows: Sequence[Row]) -> np.ndarray:
    """The table of some rows."""
    made = np.zeros((len(rows), WIDTH))
    for row, columns in zip(rows, made, strict=True):
        if row.guider is None:
            continue
        name, numbers = row.guider
        columns[KIND] = NUMBERS[name]
        columns[SCALE : SCALE + 1], columns[OPTIONS : OPTIONS + len(numbers) - 1] = (
            numbers[0],
            numbers[1:],
        )
        columns[RATIO] = row.e[0] / row.q[0] if row.e and row.q[0] else 0.0
        count = row.branches.count(UNCONDITIONAL) if kind(name).scaled else 0
        columns[SIDES : SIDES + 2 * count] = [WITH] * count + [WITHOUT] * count
        assert row.branches[: 2 * count] == (CONDITIONAL,) * count + (UNCONDITIONAL,) * count
    return made


class Guiding:
    """The stage, of buffers of its own.

    table    what guides each row
    shared   rows of plans; behind them each seat has its own
    guiders  the names whose rules run
    resolve  of the registry
    """

    def __init__(
        self, step: StepArgs, table: Tensor, shared: int, guiders: Sequence[str], backend: str,
        resolve: Resolve,
    ) -> None:  # fmt: skip
        self.step, self.table, self.shared = step, table, shared
        self.rules = [(NUMBERS[name], kind(name).guide) for name in guiders]
        x = step.slots[0]
        self.elements = x[0].numel()
        self._first, self._second = torch.empty_like(x), torch.empty_like(x)
        self._own = torch.arange(shared, shared + len(x), dtype=torch.int32, device=x.device)
        sums = torch.empty(len(x), SUMS, dtype=torch.float64, device=x.device)
        self._sums = NormsArgs(sums, self._first, self._second)
        self._norms = resolve("norms", backend, self._sums)
        share = torch.empty(len(x), dtype=torch.float64, device=x.device)
        self._share = QuantileArgs(x.new_empty(len(x)), self._first, share)
        self._quantile = resolve("quantile", backend, self._share)

    def __call__(self, outs: Sequence[Tensor]) -> None:
        if not outs:  # no row makes a call
            return
        step, table = self.step, self.step.table
        row = step.row.clamp(min=0).long()
        asked, coef, index = self.table[row], table.coef[row], table.index[row]
        kinds = torch.where(step.row >= 0, asked[:, KIND], 0.0)
        for number, rule in self.rules:
            rule(Seats(self, outs, asked, coef, index, kinds == number))
        table.coef[self.shared :].copy_(coef)
        table.index[self.shared :].copy_(index)
        table.label[self.shared :].copy_(table.label[row])
        step.row.copy_(torch.where(kinds > 0.0, self._own, step.row))

    def sums(self, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        """The op norms of two images."""
        self._first.copy_(first)
        self._second.copy_(second)
        self._norms(self._sums.tensors())
        return tuple(self._sums.out.clone().unbind(1))

    def quantile(self, x: Tensor, q: Tensor) -> Tensor:
        """The op quantile, in float64."""
        self._first.copy_(x)
        self._share.q.copy_(q)
        self._quantile(self._share.tensors())
        return self._share.out.double()


class Seats:
    """What the rule of one guider sees of all seats, and says of those that are `mine`; guiders.Guided
    explains it. Rows are written in float64 and rounded once."""

    def __init__(
        self, stage: Guiding, outs: Sequence[Tensor], asked: Tensor, coef: Tensor, index: Tensor, mine: Tensor
    ) -> None:  # fmt: skip
        self._stage, self._outs, self._mine = stage, outs, mine
        self._asked, self._coef, self._index = asked, coef, index
        self.scale, self.elements = asked[:, SCALE], stage.elements

    def option(self, i: int) -> Tensor:
        return self._asked[:, OPTIONS + i]

    def outputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        sides = self._sides
        first = [(sides == side).to(torch.uint8).argmax(dim=1) for side in (WITH, WITHOUT)]
        return self._stage.sums(*(self._picked(place) for place in first))  # type: ignore[return-value]

    def estimates(self, momentum: Tensor, slot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p, q, sides = self._slots, self._weights, self._sides
        signed = q * ((sides == WITH).to(q.dtype) - (sides == WITHOUT).to(q.dtype))
        kept = self._kept(slot)
        change = self._sum(momentum.to(p.dtype).view(-1, 1) * kept, signed)
        estimate = self._sum(torch.where(kept > 0.0, 0.0, p), q * (sides == WITH))
        slots = self._stage.step.slots
        for k in range(len(slots)):
            keeps = self._image(self._mine & (slot == k))
            slots[k].copy_(torch.where(keeps, change, slots[k]))
        _, _, dd, square, along = self._stage.sums(change, estimate)
        return dd, square, along

    def quantile(self, q: Tensor) -> Tensor:
        estimate = self._sum(self._slots, self._weights)
        return self._stage.quantile(estimate, torch.where(self._mine, q, torch.nan))

    def weigh(self, conditional: Tensor, unconditional: Tensor) -> None:
        sides = self._sides
        factor = torch.where(sides == WITH, conditional.view(-1, 1), 1.0)
        factor = torch.where(sides == WITHOUT, unconditional.view(-1, 1), factor)
        for first in (at.Q, at.RAW):
            columns = self._coef[:, first : first + at.OUTPUTS]
            self._say(columns, columns.double() * factor)

    def steer(self, estimate: Tensor, change: Tensor, slot: Tensor) -> None:
        apart = slot < 0.0  # d is of the outputs themselves
        kept = self._kept(slot).double()
        before = torch.where(kept > 0.0, 0.0, self._slots.double())
        slots = before * estimate.view(-1, 1) + kept * change.view(-1, 1)
        # raw is of the output behind the estimate: what is added to that is added to the slots' update.
        more = (slots - before) * self._asked[:, RATIO].view(-1, 1)
        mixing = self._coef[:, at.A : at.D].view(-1, at.SLOTS, at.SLOTS)
        raw = self._coef[:, at.E : at.C].double().unsqueeze(2)
        self._say(mixing, mixing.double() + raw * more.unsqueeze(1))
        self._say(self._coef[:, at.P : at.Q], slots)
        self.weigh(
            torch.where(apart, estimate + change, estimate), torch.where(apart, -change, 0.0)
        )

    def bound(self, by: Tensor) -> None:
        for column, value in ((at.LO, -by), (at.HI, by)):
            self._say(self._coef[:, column], value)
        scale = self._coef[:, at.SCALE]
        self._say(scale, scale.double() / by)

    @property
    def _sides(self) -> Tensor:
        return self._asked[:, SIDES:]

    @property
    def _slots(self) -> Tensor:
        return self._coef[:, at.P : at.Q]

    @property
    def _weights(self) -> Tensor:
        return self._coef[:, at.Q : at.RAW]

    def _kept(self, slot: Tensor) -> Tensor:
        """1 at the slot that a seat keeps something in."""
        return (torch.arange(at.SLOTS, device=slot.device) == slot.view(-1, 1)).to(self._coef.dtype)

    def _say(self, columns: Tensor, values: Tensor) -> None:
        columns.copy_(torch.where(self._per_seat(columns), values.to(columns.dtype), columns))

    def _per_seat(self, like: Tensor) -> Tensor:
        return self._mine.view(-1, *[1] * (like.ndim - 1))

    def _image(self, numbers: Tensor) -> Tensor:
        return numbers.view(-1, *[1] * (self._stage.step.slots.ndim - 2))

    def _sum(self, slots: Tensor, outputs: Tensor) -> Tensor:
        """sum_k p[k] S[k] + sum_j q[j] out[j] in this order, as the step adds."""
        state = self._stage.step.slots
        total = torch.zeros_like(state[0])
        for k in range(len(state)):
            total = self._added(total, slots[:, k], state[k])
        for j in range(self._stage.step.src.shape[1]):  # type: ignore[union-attr]
            total = self._added(total, outputs[:, j], self._output(j))
        return total

    def _added(self, total: Tensor, weight: Tensor, x: Tensor) -> Tensor:
        weight = self._image(weight)
        return torch.where(weight != 0.0, total + weight * x, total)

    def _picked(self, place: Tensor) -> Tensor:
        """The output of each seat at a place of its own."""
        made = self._output(0)
        for j in range(1, self._stage.step.src.shape[1]):  # type: ignore[union-attr]
            made = torch.where(self._image(place == j), self._output(j), made)
        return made

    def _output(self, j: int) -> Tensor:
        """Output j of every seat in the state's dtype; anything where a seat has none."""
        step = self._stage.step
        state = step.slots[0]
        assert step.src is not None
        entry, block, channels = (
            step.src[:, j].clamp(min=0),
            self._index[:, at.H + j],
            state.shape[1],
        )
        parts = [
            out.narrow(1, h * channels, channels)
            for out in self._outs
            for h in range(out.shape[1] // channels)
        ]
        made = parts[0].index_select(0, entry).to(state.dtype)
        for h, part in enumerate(parts[1:], 1):
            more = part.index_select(0, entry).to(state.dtype)
            made = torch.where(self._image(block == h), more, made)
        return made
