"""Guidance as transforms of a plan."""

from __future__ import annotations

import math
from dataclasses import replace

from .plan import Plan, Row

CONDITIONAL, UNCONDITIONAL = 0, 1


def classifier_free(
    plan: Plan, scale: float, interval: tuple[float, float] = (0.0, math.inf)
) -> Plan:
    """out = (1 - s) out_uncond + s out_cond on the calls inside an interval (Ho & Salimans 2022).

    scale     s; 1 is the conditional network alone and makes no unconditional call
    interval  (low, high]: noise-to-signal ratios sigma / alpha in which guidance acts
              (Kynkaanniemi et al. 2024); calls outside it are conditional alone
    Raises ValueError where the numbers make no sense or the plan is guided already.
    """
    low, high = interval
    if not math.isfinite(scale):
        raise ValueError(f"guidance={scale!r}: the scale is a finite number, 1 for none")
    if not 0.0 <= low < high:
        raise ValueError(
            f"interval=({low:g}, {high:g}): give noise-to-signal ratios 0 <= low < high"
        )
    if scale == 1.0:
        return plan

    def guide(row: Row) -> Row:
        if row.call is None or not low < row.call.at.ratio <= high:
            return row
        if len(set(row.branches)) != 1:
            raise ValueError("this plan is guided already; guide the solver's own plan")
        q = [s * w for s in (scale, 1.0 - scale) for w in row.q]
        e = [s * w for s in (scale, 1.0 - scale) for w in row.e]
        branches = [b for b in (CONDITIONAL, UNCONDITIONAL) for _ in row.q]
        return replace(row, q=tuple(q), e=tuple(e), blocks=row.blocks * 2, branches=tuple(branches))

    return plan.replace_rows([guide(row) for row in plan.rows])


def inpaint(plan: Plan) -> Plan:
    """Keeps the known region on its own law: after a row that leaves a state (alpha, sigma) in slot 0,
    the region is alpha known + sigma z (Song et al. 2021, appendix I.2).

    Raises ValueError where the state has a velocity, of which the rule says nothing.
    """
    if plan.inputs > 1:
        raise ValueError(
            f"inpainting keeps the known region of x on its law, and {plan.name!r} moves a velocity too, of "
            f"which that says nothing; sample without mask and known"
        )

    def keep(row: Row) -> Row:
        return row if row.state is None else replace(row, known=(row.state.alpha, row.state.sigma))

    return plan.replace_rows([keep(row) for row in plan.rows])
