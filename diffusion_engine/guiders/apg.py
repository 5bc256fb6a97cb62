r"""Adaptive projected guidance (Sadat et al. 2025, "Eliminating oversaturation and artifacts of high guidance
scales in diffusion models", algorithm 1; arXiv 2410.02416): the part of guidance along the estimate of x0
saturates colours and is left out, large changes are cut, and what was done before is taken back in part.

    d     = D_c - D_u + beta d_before                    beta < 0 pushes away from where it went
    d_r   = d min(1, r / |d|)
    d_par = <d_r, D_c> / |D_c|^2 D_c,   d_orth = d_r - d_par
    D     = D_c + (s - 1) (d_orth + eta d_par)

with D_c and D_u the estimates of x0 with the condition and without. So D = A D_c + B d, two numbers of each
sample: k = min(1, r / |d|), A = 1 - (s - 1) k (1 - eta) <d, D_c> / |D_c|^2, B = (s - 1) k. d_before is that
of the call before, and nothing at a sample's first; it takes one slot of the sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from .. import checks
from ..ops import layout
from ..plan import Plan, Row
from ..plan.linear import Linear
from .base import Guided, Guider, Interval

NONE = -1.0  # the slot of who keeps nothing


@dataclass(frozen=True)
class AdaptiveProjected(Guider):
    """eta       share of the part along the estimate that is kept, 1 for all of it
    momentum  beta, below 0 as a rule; 0 keeps nothing and takes no slot
    limit     r, the largest |d|, over all elements of a sample; None for none
    """

    name: ClassVar[str] = "apg"
    source: ClassVar[str] = "Sadat et al. 2025, arXiv 2410.02416, algorithm 1"

    eta: float = 0.0
    momentum: float = -0.5
    limit: float | None = None

    def __post_init__(self) -> None:
        for name in ("eta", "momentum"):
            checks.settle(self, name, checks.number)
        checks.settle(
            self, "limit", checks.number, "the largest norm of a change is above 0, or None"
        )
        if self.limit is not None and not self.limit > 0.0:
            raise ValueError(
                f"limit={self.limit:g}: the largest norm of a change is above 0, or None"
            )
        if abs(self.momentum) >= 1.0:
            raise ValueError(
                f"momentum={self.momentum:g}: what is kept would grow; give a number between -1 and 1"
            )

    def numbers(self) -> tuple[float, ...]:
        return self.eta, self.momentum, self.limit or 0.0, NONE

    def plan(self, plan: Plan, scale: float, interval: Interval) -> Plan:
        made = super().plan(plan, scale, interval)
        if scale == 1.0 or self.momentum == 0.0:
            return made
        slot = plan.slots
        if slot == layout.SLOTS:
            raise ValueError(
                f"guider 'apg' keeps its momentum in a slot and {plan.name!r} takes all {slot}: give it "
                "momentum=0, or another solver"
            )
        first = made.rows[0]
        kept = replace(first, new={**first.new, slot: Linear()})
        return made.replace_rows([kept, *(keeping(row, slot) for row in made.rows[1:])])

    def row(self, row: Row, scale: float) -> Row:
        own = len(row.q) // 2  # outputs of a branch: a variance is one that no estimate is made of
        if any((*row.q[1:own], *row.e[1:own])):
            raise ValueError(
                "guider 'apg' turns estimates of x0, and says nothing of a network's derivative heads: use "
                "another solver or guider"
            )
        return super().row(row, scale)

    @staticmethod
    def guide(at: Guided) -> None:
        eta, momentum, limit, slot = (at.option(i) for i in range(4))
        dd, square, along = at.estimates(momentum, slot)
        cut = torch.where((limit > 0.0) & (dd > limit * limit), limit / torch.sqrt(dd), 1.0)
        change = (at.scale - 1.0) * cut
        share = torch.where(square > 0.0, along / square, 0.0)
        at.steer(1.0 - change * ((1.0 - eta) * share), change, slot)


def keeping(row: Row, slot: int) -> Row:
    """A guided row that reads what is kept, by a weight that the rule gives it."""
    if row.guider is None:
        return row
    name, numbers = row.guider
    p = (*row.p, *[0.0] * (slot - len(row.p)), 1.0)
    return replace(row, p=p, guider=(name, (*numbers[:-1], float(slot))))
