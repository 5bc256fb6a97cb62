"""DPM-Solver++(2S) with ancestral noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan.linear import Linear, denoised, normal, uncond, x
from ..processes import GaussianProcess, Point
from .base import Points, Update, first_order_only, steps, transfer
from .coordinates import FLOW, Coordinates, cfg_pp_objection, check, check_eta, coordinates
from .euler import Renewed, ancestral, level
from .overshoot import overshot


def renewed(frame: Coordinates, s: Point, t: Point, eta: float) -> tuple[float, float]:
    """Ratios (g_down, g_up) of an ancestral step; in a flow's coordinates u_down = u_t (1 + eta (u_t / u_s -
    1)), u the level, as in ComfyUI."""
    if frame is not FLOW or eta == 0.0:
        return ancestral(s, t, eta)
    return overshot(t, eta * (1.0 - frame.level(t) / frame.level(s)))


@dataclass(frozen=True)
class DPMpp2SAncestral(Renewed):
    """The midpoint rule in lam on `denoised` to a lower level, then fresh noise up to the next one.

    eta      amount of fresh noise, 0 (none) to 1 (in EDM's coordinates DDPM's)
    s_noise  multiplies the fresh noise
    coordinates  where eta tells the lower level: "edm" as k-diffusion, "flow" as ComfyUI for flow matching;
             "auto" takes flow where alpha + sigma = 1
    cfg_pp   the step keeps the noise of the unconditional output, whose second call it takes, and the first
             one's guidance: CFG++, whose scale lies in [0, 1]
    """

    name: ClassVar[str] = "dpmpp_2s_ancestral"
    source: ClassVar[str] = "Lu et al. 2022 (DPM-Solver++), algorithm 1; k-diffusion; ComfyUI"
    differs: ClassVar[str] = (
        "a step from pure noise has one call, where ComfyUI's has its second at t=0.9999"
    )
    calls: ClassVar[int] = 2
    order = 2
    coordinates: str = "auto"
    cfg_pp: bool = False

    def __post_init__(self) -> None:
        check_eta(self.eta)
        check(self.coordinates)

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return cfg_pp_objection(self.cfg_pp, parameterisation, points)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        frame = coordinates(self.coordinates, points)
        for s, t in steps(points):
            down, up = renewed(frame, s, t, self.eta)
            lower = level(t, down) if self.eta else t
            noise = t.alpha * up * self.s_noise * normal(0)
            made = uncond if self.cfg_pp else denoised
            end, guidance = transfer(s, lower, x, made), t.alpha * (denoised - made)
            if first_order_only(s, lower):
                yield Update(s, {0: end + guidance + noise}, t)
                continue
            middle, kept = process.at_lam(0.5 * (s.lam + lower.lam)), {}
            if self.cfg_pp:  # the first call's guidance waits in slot 0
                kept = {0: lower.sigma / s.sigma * x + guidance}
                end = x + transfer(s, lower, Linear(), made)
            yield Update(s, {1: transfer(s, middle, x, made)} | kept, None)
            yield Update(middle, {0: end + noise}, t, read=(1,))
