"""Learned tables: the whole history is kept, and every state is made of all of it."""

import math

import numpy as np

from .common import Point


def learned(denoiser, points, x, noise=None, *, schedule, table):
    """Shaul et al. 2024, eq. 12, with a table's JSON: D_j is an estimate of x0, eps, v or eps - x0."""
    levels = _levels(schedule, table)
    states, outs, x = [x], [], np.asarray(x, dtype=np.float64)
    for i, row in enumerate(table["b"], 1):
        at, state = levels[i - 1], states[-1]
        x0 = denoiser(state, at)
        eps = (state - at.alpha * x0) / at.sigma
        of = table.get("of", "x0")
        outs.append(
            {"x0": x0, "eps": eps, "v": at.alpha * eps - at.sigma * x0, "flow": eps - x0}[of]
        )
        base = states[-1] if table.get("base") == "previous" else x
        made = table["a"][i - 1] * base
        for weight, out in zip(reversed(row), reversed(outs), strict=False):
            made = made + weight * out
        states.append(made)
    return states[-1]


def _levels(schedule, table):
    if "times" in table:
        return [_point(schedule, t) for t in table["times"]]
    lams = table.get("lams") or [-math.log(g) if g else None for g in table["sigmas"]]
    return [schedule.clean() if lam is None else schedule.point_at_lam(lam) for lam in lams]


def _point(schedule, given):
    if not isinstance(given, tuple | list):
        return schedule.point(given)
    return Point(*given, math.inf) if given[2] == 0.0 else schedule.point(given[0])
