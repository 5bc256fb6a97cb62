r"""CFG-Zero* (Fan et al. 2025, "CFG-Zero*: improved classifier-free guidance for flow matching models",
algorithm 1; arXiv 2503.18886): the unconditional output is scaled to fit the conditional one best, and the
first calls, at which a network says least, are taken to be zero.

    a   = <c, u> / |u|^2
    out = (1 - s) a u + s c
    out = 0                      in the first `zero` calls

with c and u the network's outputs with the condition and without. An output of zero is a velocity of zero: a
step of a flow's ODE leaves the state as it is then.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from .. import checks
from ..plan import Plan, Row
from .base import Guided, Guider, Interval


@dataclass(frozen=True)
class CFGZeroStar(Guider):
    """zero  of how many calls, the first ones, the output is taken to be zero"""

    name: ClassVar[str] = "cfg_zero"
    source: ClassVar[str] = "Fan et al. 2025, arXiv 2503.18886, algorithm 1"

    zero: int = 1

    def __post_init__(self) -> None:
        wanted = "the first calls whose output is zero are a whole number, 0 for none"
        checks.settle(self, "zero", checks.whole, 0, wanted)

    def plan(self, plan: Plan, scale: float, interval: Interval) -> Plan:
        made = super().plan(plan, scale, interval)
        if scale == 1.0:
            return made
        calls = [i for i, row in enumerate(plan.rows) if row.call is not None][: self.zero]
        rows = [silent(plan.rows[i]) if i in calls else row for i, row in enumerate(made.rows)]
        return made.replace_rows(rows)

    @staticmethod
    def guide(at: Guided) -> None:
        s = at.scale
        _, _, _, uu, cu = at.outputs()
        fit = torch.where(uu > 0.0, cu / uu, 1.0)
        at.weigh(s, (1.0 - s) * fit)


def silent(row: Row) -> Row:
    """A row whose call says nothing."""
    return replace(row, q=(0.0,) * len(row.q), e=(0.0,) * len(row.e))
