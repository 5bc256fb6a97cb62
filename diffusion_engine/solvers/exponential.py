"""Exponential Runge-Kutta methods from Butcher tables, RES among them, and RES' multistep method.

With y = x / scale and the clock l = -log(sigma / scale) the ODE is y' = -y + D, D the estimate of x0: its
linear part is solved exactly. The scale is alpha, and then l = log(alpha / sigma), or that of a flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan.linear import denoised, normal, slot, uncond, x
from ..processes import GaussianProcess, Point
from .base import Points, Ring, Solver, Update, steps, transfer
from .butcher import Tableau, read, value
from .coordinates import Coordinates, cfg_pp_objection, check, check_eta, coordinates
from .euler import Renewed, ancestral, level
from .phi import phi
from .tableaus import named


@dataclass(frozen=True)
class ExpRK(Solver):
    """Exponential Runge-Kutta of up to five stages from a Butcher table (Hochbruck & Ostermann 2005).

    tableau  "res_2s" and "res_3s" (RES), "exp_heun", "etdrk3", "etdrk4", "krogstad", "strehmel_weiner",
             "hochbruck_ostermann", or one of your own: {"c": [...], "a": [[...], ...], "b": [...]}
    nodes    of "res_2s" its c2, of "res_3s" its c2 and c3; none are 1/2 and 1
    coordinates  "edm" solves in log(alpha / sigma), "flow" in -log t of flow matching, where a first step
             from pure noise has the full order; "auto" takes flow where alpha + sigma = 1, and else edm
    """

    name: ClassVar[str] = "exp_rk"
    source: ClassVar[str] = "Hochbruck & Ostermann 2005; Zhang et al. 2023 (RES); ComfyUI"
    calls: ClassVar[int] = 2
    tableau: Mapping[str, Any] | str = "res_2s"
    nodes: tuple[float, ...] = ()
    coordinates: str = "auto"

    def __post_init__(self) -> None:
        check(self.coordinates)
        if not isinstance(self.tableau, str):
            if self.nodes:
                raise ValueError(f"nodes={list(self.nodes)} go with 'res_2s' and 'res_3s' alone")
            object.__setattr__(self, "tableau", read(self.tableau).as_json())
        _ = self.table

    def __hash__(self) -> int:
        return hash((str(self.tableau), self.nodes, self.coordinates))

    @cached_property
    def table(self) -> Tableau:
        given = self.tableau
        return named(given, self.nodes) if isinstance(given, str) else read(given)

    @property
    def order(self) -> int:
        return self.table.order

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        frame = coordinates(self.coordinates, points)
        for s, t in steps(points):
            if frame.finite(s, t):
                yield from self.step(process, frame, s, t)
            else:
                yield Update(s, {0: transfer(s, t, x, denoised)}, t)

    def step(
        self, process: GaussianProcess, frame: Coordinates, s: Point, t: Point
    ) -> Iterator[Update]:
        """A call for each stage. Slot i sums up stage i until it is read, slot 0 the end."""
        c, h = self.table.c, frame.clock(t) - frame.clock(s)
        stages = [frame.between(process, s, t, at) for at in c]
        ends = {0: (t, self.table.b)} | {i: (stages[i], self.table.a[i]) for i in range(1, len(c))}
        for j, at in enumerate(stages):
            new = {}
            for k, (end, row) in ends.items():
                if (k == 0 or k > j) and (j == 0 or row[j]):
                    before = slot(k) if j else end.sigma / s.sigma * x
                    new[k] = before + frame.scale(end) * h * value(row[j], h) * denoised
            yield Update(at, new, t if j + 1 == len(c) else None, read=(j,))


@dataclass(frozen=True)
class RESMultistep(Renewed):
    """Adams-Bashforth's exponential method of order 2: e^-h y + h (phi_1 D0 + phi_2 (D0 - D1) / r).

    h leads to the lower level, behind which there is fresh noise, and r h led there from D1. Without noise
    and in EDM's coordinates it is 'dpmpp_2m' with variant="heun".

    eta      amount of fresh noise, 0 (none) to 1
    s_noise  multiplies the fresh noise
    coordinates  "edm", "flow" or "auto", as of 'exp_rk'
    cfg_pp   the step keeps the slope of the unconditional output: CFG++, whose scale lies in [0, 1]
    published  with cfg_pp, steps with D1 scale guidance as they do x, as in ComfyUI, not as the first one
    """

    name: ClassVar[str] = "res_multistep"
    source: ClassVar[str] = "Zhang et al. 2023 (RES); ComfyUI"
    differs: ClassVar[str] = (
        "with noise x is scaled for it, where ComfyUI's flow matching leaves its noise level; "
        "cfg_pp guides all steps alike (published=True)"
    )
    order = 2
    eta: float = 0.0
    coordinates: str = "auto"
    cfg_pp: bool = False
    published: bool = False

    def __post_init__(self) -> None:
        check_eta(self.eta)
        check(self.coordinates)
        if self.published and not self.cfg_pp:
            raise ValueError("published=True tells how cfg_pp=True is meant; give both")

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return cfg_pp_objection(self.cfg_pp, parameterisation, points)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        frame, ring = coordinates(self.coordinates, points), Ring(1, infinite=True)
        reached = points[0]
        for i, (s, t) in enumerate(steps(points)):
            down, up = ancestral(s, t, self.eta)
            lower = level(t, down) if self.eta else t
            new, newest = transfer(s, lower, x, denoised), denoised
            if self.cfg_pp:
                new, newest = frame.guided(s, lower), uncond
            for s1, d1 in ring.past:
                if frame.finite(s1, s, lower, reached):
                    h = frame.clock(lower) - frame.clock(s)
                    r = frame.clock(reached) - frame.clock(s1)
                    weight = frame.scale(lower) * h**2 * phi(2, -h) / r
                    if self.published:
                        off = lower.sigma / s.sigma * frame.scale(s) - frame.scale(lower)
                        new = new + off * (denoised - uncond)
                    new = new + weight * (newest - d1)
            kept = {ring.store(s): newest} if i + 2 < len(points) else {}
            noise = t.alpha * up * self.s_noise * normal(0)
            yield Update(s, {0: new + noise} | kept, t)
            reached = lower
