"""Gradient estimation: Euler's method along a mean of this slope and the last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from .. import checks
from ..networks.parameterisation import Parameterisation
from ..plan.linear import denoised, uncond, x
from ..processes import GaussianProcess
from .base import Points, Ring, Solver, Update, steps, transfer
from .coordinates import cfg_pp_objection, check, coordinates


@dataclass(frozen=True)
class GradientEstimation(Solver):
    """x / scale += (level_t - level_s) (gamma d + (1 - gamma) d_last), d the slope (Permenter & Yuan 2024).

    gamma    2 as published; 1 is Euler's method, and 3/2 Adams-Bashforth's of equal steps
    coordinates  "edm" has x / alpha, sigma / alpha and eps for scale, level and slope; "flow" x / (alpha +
             sigma), flow matching's t and its velocity; "auto" takes flow where alpha + sigma = 1
    cfg_pp   the step keeps the slope of the unconditional output: CFG++, whose scale lies in [0, 1]
    """

    name: ClassVar[str] = "gradient_estimation"
    source: ClassVar[str] = "Permenter & Yuan 2024, algorithm 2; ComfyUI"
    gamma: float = 2.0
    coordinates: str = "auto"
    cfg_pp: bool = False

    def __post_init__(self) -> None:
        checks.number("gamma", self.gamma)
        check(self.coordinates)

    @property
    def order(self) -> int:
        return 2 if self.gamma == 1.5 else 1

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return cfg_pp_objection(self.cfg_pp, parameterisation, points)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        frame, ring = coordinates(self.coordinates, points), Ring(1, infinite=True)
        for i, (s, t) in enumerate(steps(points)):
            new, slope = transfer(s, t, x, denoised), frame.slope(s, x)
            if self.cfg_pp:
                new, slope = frame.guided(s, t), frame.slope(s, x, uncond)
            for _, last in ring.past:
                if frame.finite(s, t):
                    way = frame.scale(t) * (frame.level(t) - frame.level(s))
                    new = new + way * (self.gamma - 1.0) * (slope - last)
            kept = {ring.store(s): slope} if self.gamma != 1.0 and i + 2 < len(points) else {}
            yield Update(s, {0: new} | kept, t)
