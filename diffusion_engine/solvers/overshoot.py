"""Euler's method beyond a flow's next time, and fresh noise back to it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from .. import checks
from ..plan.linear import denoised, normal, x
from ..processes import GaussianProcess, Point
from .base import Points, Update, steps, transfer
from .coordinates import FLOW
from .euler import Renewed, level


def overshot(t: Point, share: float) -> tuple[float, float]:
    """(g_down, g_up) of a step beyond t to u_t (1 - share), u = sigma / (alpha + sigma) a flow's time; g_up
    leads back: g_down^2 + g_up^2 = g_t^2."""
    down = FLOW.ratio(FLOW.level(t) * max(0.0, 1.0 - share))
    return down, math.sqrt(max(t.ratio**2 - down**2, 0.0))


@dataclass(frozen=True)
class EulerOvershoot(Renewed):
    """Euler to u_t (1 - eta (u_s - u_t)), u a flow's time, which is 1 at noise; then fresh noise up to u_t
    (Hu et al. 2024, AMO Sampler).

    eta      how far it goes beyond, the paper's c; 0 is Euler's method
    s_noise  multiplies the fresh noise
    relative u_s - u_t is a share of u_s, as in ComfyUI's euler_ancestral of flow matching
    """

    name: ClassVar[str] = "euler_overshoot"
    source: ClassVar[str] = (
        "Hu et al. 2024 (AMO Sampler, arXiv 2411.19415); arXiv 2506.15864; ComfyUI"
    )
    relative: bool = False

    def __post_init__(self) -> None:
        if not checks.number("eta", self.eta) >= 0.0:
            raise ValueError(f"eta={self.eta:g}: a step goes beyond its end by 0 or more")

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        for s, t in steps(points):
            lower, up = t, 0.0
            if self.eta:
                way = FLOW.level(s) - FLOW.level(t)
                down, up = overshot(t, self.eta * way / (FLOW.level(s) if self.relative else 1.0))
                lower = level(t, down)
            noise = t.alpha * up * self.s_noise * normal(0)
            yield Update(s, {0: transfer(s, lower, x, denoised) + noise}, t)
