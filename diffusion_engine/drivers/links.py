"""The calls of a plan one behind the other, with what each has of the rows without a call after it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from ..ops import layout
from ..plan import Call, Plan, Row
from ..plan.linear import x
from ..processes import Point

INCREMENTS, FROZEN, SECANT = SLOPES = ("increments", "frozen", "secant")
SYMBOLS = (*(f"S{k}" for k in range(layout.SLOTS)), "D", "raw", "z0", "z1")


@dataclass(frozen=True, eq=False)
class Link:
    """A call of a plan: its row, and those without a call behind it."""

    rows: tuple[Row, ...]

    @cached_property
    def row(self) -> Row:
        return self.rows[0]

    @cached_property
    def call(self) -> Call:
        assert self.row.call is not None
        return self.row.call

    @property
    def at(self) -> Point:
        return self.call.at

    @property
    def read(self) -> tuple[int, ...]:
        return self.call.read

    @cached_property
    def scale(self) -> float:
        """sqrt(alpha^2 + sigma^2), of what it reads."""
        return math.hypot(self.at.alpha, self.at.sigma)

    @cached_property
    def then(self) -> Row:
        """The row by which a seat makes the call, whose first slots are what it reads."""
        row, call = self.row, self.call
        if any(p for k, p in enumerate(row.p) if k not in self.read):
            raise ValueError("a row's estimate of x0 takes a slot that its call does not read")
        return replace(
            row, call=replace(call, read=tuple(range(len(self.read)))), new={0: x}, p=self.p,
            learned=None, known=None, spans=(), state=None,
        )  # fmt: skip

    @cached_property
    def p(self) -> tuple[float, ...]:
        """The weights in `denoised` of what it reads."""
        return tuple(self.row.p[k] if k < len(self.row.p) else 0.0 for k in self.read)

    @cached_property
    def raw(self) -> float | None:
        """c where raw = c (D - p u), the share of the outputs in D; None where it has others of them."""
        e, q = self.row.e, self.row.q
        c = next((a / b for a, b in zip(e, q, strict=False) if b), 0.0)
        same = all(math.isclose(a, c * b, rel_tol=1e-9) for a, b in zip(e, q, strict=False))
        return c / self.row.scale if same and self.row.scale else None

    def slope(self, rule: str) -> tuple[float, float]:
        """What J begins with, for D and raw."""
        row = self.row
        if len(self.read) > 1 or rule == FROZEN:
            d = 0.0
        elif rule == INCREMENTS:
            d = (1.0 - row.new[0]["S0"]) / row.new[0]["D"]
        else:
            d = self.at.alpha / self.scale**2
        return d, self._of_raw(d)

    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Between which J of D and raw is."""
        most = 2.0 / self.at.alpha if self.at.alpha > 0.0 else 0.0
        raws = sorted((self._of_raw(0.0), self._of_raw(most)))
        return (0.0, most), (raws[0], raws[1])

    def _of_raw(self, d: float) -> float:
        return self.raw * (d - self.p[0]) if self.raw else 0.0

    @cached_property
    def terms(self) -> list[list[tuple[int, list[tuple[int, float]]]]]:
        """Of each row what its slots become: places in (*slots, D, raw, z0, z1) with weights."""
        return [
            [(k, [(SYMBOLS.index(s), w) for s, w in new]) for k, new in row.new.items()]
            for row in self.rows
        ]


def links(plan: Plan) -> list[Link]:
    """The calls of a plan whose first two rows make its state, and the first of them."""
    groups: list[list[Row]] = []
    for row in plan.rows[1:]:
        if row.call is None:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [Link(tuple(group)) for group in groups]
