"""The law of what a row draws, given the slots before it: a Gaussian in every element. Host, float64."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from ..ops import layout
from ..plan import Plan, Row

PARALLEL = 1e-12  # what is left of a row of weights, by its size, where it is made of others
LOG_2_PI = math.log(2.0 * math.pi)


@dataclass(frozen=True, eq=False)
class Transition:
    """The draw of a row, slots = mean + e root w, w standard normals, in every element.

    The row's own weights C [K, M] of its normals z are root basis, and w = basis z: basis [rank, M] has
    orthonormal rows and root [K, rank] is lower triangular in the slots of `free`. Two normals of one slot
    are one w. Where one normal goes into two slots the law lies on a line: it has a density there, and the
    slots beyond `free` follow from those. What the next call reads tells w before others do: it is a state,
    while a partial sum beside it may have so little noise that rounding hides it.

    slots  that the row draws, K of them, rising
    root   [K, rank]
    basis  [rank, M]
    free   places in `slots`, rank of them, which tell w
    e      is the factor of a learned variance, exp(v0 + v1 out), and else 1
    """

    slots: tuple[int, ...]
    root: np.ndarray
    basis: np.ndarray
    free: tuple[int, ...]

    @classmethod
    def of(cls, row: Row, first: Sequence[int] = ()) -> Transition | None:
        """That of a row; None where it draws nothing.

        first  slots that tell w before others do, which follow rising
        """
        weights = {
            k: np.array([update[f"z{m}"] for m in range(layout.NORMALS)])
            for k, update in sorted(row.new.items())
        }
        drawn = [k for k, weight in weights.items() if weight.any()]
        if not drawn:
            return None
        basis: list[np.ndarray] = []
        free = []
        for k in [*(k for k in first if k in drawn), *(k for k in drawn if k not in first)]:
            rest = weights[k] - sum((weights[k] @ b * b for b in basis), np.zeros(layout.NORMALS))
            size = float(np.linalg.norm(rest))
            if size > PARALLEL * float(np.linalg.norm(weights[k])):
                basis.append(rest / size)
                free.append(drawn.index(k))
        made = np.stack(basis)
        root = np.stack([weights[k] for k in drawn]) @ made.T
        for column, place in enumerate(free):  # zeros but for rounding
            root[place, column + 1 :] = 0.0
        return cls(tuple(drawn), root, made, tuple(free))

    @property
    def rank(self) -> int:
        return len(self.free)

    @property
    def told(self) -> tuple[int, ...]:
        """The slots that tell w."""
        return tuple(self.slots[place] for place in self.free)

    @cached_property
    def log_size(self) -> float:
        """log sqrt(det(root^T root)): the volume that root makes of a unit one, on the law's own support."""
        return float(np.log(np.abs(np.diag(np.linalg.qr(self.root)[1]))).sum())

    def std(self, slot: int) -> float:
        """The standard deviation of a slot, without e; 0 where the row draws none for it."""
        if slot not in self.slots:
            return 0.0
        return float(np.linalg.norm(self.root[self.slots.index(slot)]))

    def noise(self, slot: int, w: Sequence[Tensor]) -> Tensor | float:
        """root w of a slot, without e."""
        root = self.root[self.slots.index(slot)]
        return sum((float(a) * b for a, b in zip(root, w, strict=True) if a), 0.0)

    def from_normals(self, z: Mapping[int, Tensor]) -> list[Tensor]:
        """w of the row's normals."""
        return [sum(float(a) * z[m] for m, a in enumerate(row) if a) for row in self.basis]  # type: ignore[misc]

    def from_states(self, off: Mapping[int, Tensor], log_e: Tensor | None) -> list[Tensor]:
        """w of a state.

        off    of each slot of `told`, the state less its mean
        log_e  of a learned variance
        """
        w: list[Tensor] = []
        for column, (place, slot) in enumerate(zip(self.free, self.told, strict=True)):
            rest = off[slot] if log_e is None else off[slot] * (-log_e).exp()
            for a, b in zip(self.root[place], w, strict=False):
                rest = rest - float(a) * b
            w.append(rest / float(self.root[place, column]))
        return w

    def log_density(self, w: Sequence[Tensor], log_e: Tensor | None = None) -> Tensor:
        """Of each element, -|w|^2 / 2 - log_size - rank (log e + log(2 pi) / 2)."""
        square = sum(part * part for part in w)
        made = -0.5 * square - (self.log_size + 0.5 * self.rank * LOG_2_PI)
        return made if log_e is None else made - self.rank * log_e  # type: ignore[return-value]


def transitions(plan: Plan) -> dict[int, Transition]:
    """By their rows, what a plan draws after its first state; kept with the plan."""
    if "transitions" not in plan.packed:
        made = {}
        read: tuple[int, ...] = ()  # by the next call
        for i in range(len(plan.rows) - 1, 0, -1):
            row = plan.rows[i]
            if drawn := Transition.of(row, read):
                made[i] = drawn
            read = row.call.read if row.call else read
        plan.packed["transitions"] = dict(sorted(made.items()))
    return plan.packed["transitions"]
