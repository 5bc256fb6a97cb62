"""GENIE: the second truncated Taylor method on the probability flow ODE."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan import Plan
from ..plan.linear import denoised, raw, x
from ..processes import GaussianProcess, Point
from .base import (
    Points,
    Solver,
    Update,
    first_order_only,
    first_row,
    off_time,
    refuse_unsuited,
    steps,
    transfer,
)


@dataclass(frozen=True)
class GENIE(Solver):
    """x / alpha += H eps + H^2 / 2 d eps / dg with g = sigma / alpha and H = g_t - g_s, one call a step.

    afs      the first step is analytic, without a call: eps is x / sqrt(alpha^2 + sigma^2), which is x
             itself for VP, and its derivative 0; the run is then of order 1, with a constant that is small
             where the first time is nearly pure noise
    denoise  after the last time another call, a first-order step to clean data; end="zero" ends with
             that step anyway

    The network offers d eps / dg (ScoreNetwork.derivative): the total derivative along the ODE, by
    GENIE's distilled heads or exactly. Steps from pure noise and to clean data are first order. The
    gradient of a classifier has no head: beside heads it is followed to first order, exactly to second.
    """

    name: ClassVar[str] = "genie"
    source: ClassVar[str] = "Dockhorn et al. 2022 (GENIE), section 3"
    differs: ClassVar[str] = (
        "with guidance the conditional branch mixes its own heads, the last denoising call is made at the "
        "last time, and the analytic first step needs no branch: the published guidance script mixes the "
        "unconditional heads and denoises at the time before"
    )
    asymptotic = 2
    afs: bool = False
    denoise: bool = False

    @property
    def order(self) -> int:
        return 1 if self.afs else 2  # the analytic slope is off by what does not fall with the step

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        if parameterisation.derivative == "exact":  # along the process's own law
            return off_time(parameterisation.process, points)
        if parameterisation.derivative is not None:
            return None
        return (
            f"the network {parameterisation.name!r} does not offer d eps / dg; wrap it with "
            "genie.exact_derivative, attach a trained head to it with genie.attach, or use 'dpmpp_2m', which "
            "estimates that derivative from the step before"
        )

    def plan(
        self,
        parameterisation: Parameterisation,
        points: Points,
        start: str = "prior",
        clip: tuple[float, float] | None = None,
    ) -> Plan:
        process = parameterisation.process
        # Encoding goes up, with neither of the two options.
        downward = points[-1].lam > points[0].lam
        if downward and self.denoise and points[-1].sigma > 0.0:
            points = (*points, process.clean)
        if not (downward and self.afs):
            return super().plan(parameterisation, points, start, clip)
        refuse_unsuited(self, parameterisation, points)
        if len(points) < 3:
            raise ValueError("afs=True takes the first of at least 2 steps; ask for more steps")
        made = super().plan(parameterisation, points[1:], start, clip)
        first = first_row(process, points[0], start)
        moved = analytic(points[0], points[1]) * first.new[0]
        row = replace(first, new={0: moved}, state=points[1])
        return made.replace_rows([row, *made.rows[1:]])

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            end = transfer(s, t, x, denoised)
            if first_order_only(s, t):
                yield Update(s, {0: end}, t)
                continue
            half = 0.5 * t.alpha * (t.ratio - s.ratio) ** 2
            yield Update(s, {0: end + half * raw}, t, slope=True)


def analytic(s: Point, t: Point) -> float:
    """x_t / x_s of a first-order step with eps = x_s / sqrt(alpha_s^2 + sigma_s^2)."""
    if s.alpha == 0.0:
        return t.sigma / s.sigma
    slope = s.alpha * (t.ratio - s.ratio) / math.hypot(s.alpha, s.sigma)
    return t.alpha / s.alpha * (1.0 + slope)
