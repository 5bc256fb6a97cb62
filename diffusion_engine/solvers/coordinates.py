"""The two scalings in which solvers are written: EDM's and flow matching's."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, uncond, x
from ..processes import GaussianProcess, Point
from . import cfg_pp
from .base import Points

NAMES = ("auto", "edm", "flow")


class Coordinates(NamedTuple):
    """y = x / scale at the noise level sigma / scale. Along the ODE dy / dlevel = (y - x0) / level.

    scale  alpha, where the level is EDM's sigma; or alpha + sigma, where it is the t of flow matching
    ratio  sigma / alpha of a level
    """

    scale: Callable[[Point], float]
    ratio: Callable[[float], float]

    def level(self, p: Point) -> float:
        """Infinite at pure noise in EDM's coordinates, 1 in those of a flow."""
        scale = self.scale(p)
        return p.sigma / scale if scale > 0.0 else math.inf

    def clock(self, p: Point) -> float:
        """l = -log level, which grows towards data; log(alpha / sigma) in EDM's coordinates."""
        level = self.level(p)
        return -math.log(level) if level > 0.0 else math.inf

    def finite(self, *ends: Point) -> bool:
        """Whether the clock is finite at all of these points."""
        return all(0.0 < self.level(p) < math.inf for p in ends)

    def between(self, process: GaussianProcess, s: Point, t: Point, c: float) -> Point:
        """The point at the share c of the way from s to t on the clock."""
        if c in (0.0, 1.0):
            return t if c else s
        level = self.level(s) * (self.level(t) / self.level(s)) ** c
        return process.at_ratio(self.ratio(level))

    def slope(self, at: Point, state: Linear, x0: Linear = denoised) -> Linear:
        """dy / dlevel: eps in EDM's coordinates, the velocity eps - x0 in those of a flow."""
        return (state - self.scale(at) * x0) / at.sigma

    def guided(self, s: Point, t: Point) -> Linear:
        """CFG++'s step from s: y = x0 + level slope, x0 the guided estimate, the slope the unconditional
        one's."""
        left = t.sigma / s.sigma
        return left * x + self.scale(t) * denoised - left * self.scale(s) * uncond


EDM = Coordinates(lambda p: p.alpha, lambda level: level)
FLOW = Coordinates(lambda p: p.alpha + p.sigma, lambda level: level / (1.0 - level))


def cfg_pp_objection(
    wanted: bool, parameterisation: Parameterisation, points: Points
) -> str | None:
    """Why CFG++ in several calls cannot run, where it is wanted."""
    if wanted and points[-1].lam < points[0].lam:
        return "cfg_pp in two calls does not lead back; encode with 'ddim', cfg_pp=True"
    return cfg_pp.objection(parameterisation) if wanted else None


def check(name: str) -> None:
    """Raises ValueError where coordinates have another name."""
    checks.one_of("coordinates", name, NAMES)


def check_eta(eta: float) -> None:
    """Raises ValueError where an amount of noise is below 0."""
    if not checks.number("eta", eta) >= 0.0:
        raise ValueError(f"eta={eta:g}: an amount of noise is 0 or above")


def coordinates(name: str, points: Points) -> Coordinates:
    """Those of a name; "auto" is flow where alpha + sigma = 1 at all points of a run, and else edm."""
    if name == "auto":
        straight = all(abs(p.alpha + p.sigma - 1.0) < 1e-9 for p in points)
        return FLOW if straight else EDM
    return FLOW if name == "flow" else EDM
