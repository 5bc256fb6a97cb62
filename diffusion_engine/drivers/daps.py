"""Decoupled annealing posterior sampling (Zhang et al., CVPR 2025).

At every level of the run, from noise to data (algorithm 1):

    x0hat    the end of the probability-flow ODE from x_t, in a few steps
    x0       Langevin dynamics of p(x0 | x_t, y) ~ N(x0; x0hat, r^2) N(y; A x0, sigma_y^2), r = sigma / alpha,
             x0 <- x0 - e ((x0 - x0hat) / r^2 - A^T (y - A x0) / sigma_y^2) + sqrt(2 e) z
    x_t'     alpha_t' x0 + sigma_t' z

so that one level's sample is not tied to the last one's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from .. import checks
from ..executors.course import Lead, Move, Seen
from ..networks.parameterisation import Parameterisation
from ..plan.linear import denoised, slot, x
from ..processes import Point
from ..sampler.led import Run
from ..solvers.base import finite_start, transfer
from ..solvers.update import Update
from .measured import Measured

LEVEL = 1 << 12  # keys of a level: one for each of its normals
DRAWN = 32  # normals that are held at a time
POWER = 30  # steps of the power iteration for ||A||^2


@dataclass(frozen=True)
class DAPS(Measured):
    """An ODE to the data, Langevin dynamics there, and noise of the next level, at every time of the run.

    operator   as of InverseProblem
    sigma_y    standard deviation of the measurement's noise, above 0; the paper's experiments take 0.01
    ode_steps  calls of the network a level, 1 or more: steps of DDIM, even in t
    langevin   steps of the dynamics, which call no network, 1 to 4000
    step       their size e as a share of 1 / (1 / r^2 + ||A||^2 / sigma_y^2), above 0 and below 2

    The paper tunes e to each task and lets it fall from level to level; a share of the stable one does both.
    Of the solver the times count alone.
    """

    name: ClassVar[str] = "daps"
    source: ClassVar[str] = "Zhang et al. 2025 (DAPS), algorithm 1"
    served: ClassVar[bool] = False
    slots: ClassVar[int] = 2
    ode_steps: int = 5
    langevin: int = 50
    step: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.whole("ode_steps", self.ode_steps, 1, "a level calls the network once or more")
        if checks.whole("langevin", self.langevin, 1, "1 step or more") >= LEVEL:
            raise ValueError(f"langevin={self.langevin}: give at most {LEVEL - 1} steps a level")
        if not 0.0 < checks.number("step", self.step) < 2.0:
            raise ValueError(
                f"step={self.step:g}: dynamics are stable for a share above 0 and below 2"
            )
        if not self.sigma_y > 0.0:
            raise ValueError("sigma_y=0: Langevin dynamics need a likelihood; give a noise above 0")

    def objection(self, network: Parameterisation, points: Sequence[Point]) -> str | None:
        return finite_start(network.process, points)

    def lead(self, run: Run) -> Lead:
        y, points = self.measurement(run), run.points
        square = self._square(run.shape, y)
        seen: Seen | None = None
        move_to = run.plan.rows[0]
        for i, s in enumerate(points[:-1]):
            inner = self._inner(run, s)
            rows = [
                run.row(Update(a, {0: transfer(a, b, x, denoised)}, b), (i + 1) * LEVEL)
                for a, b in pairwise(inner)
            ]
            last = run.row(Update(inner[-1], {0: slot(1)}, points[i + 1]), (i + 1) * LEVEL)
            for row, then in zip([move_to, *rows], [*rows, last], strict=True):
                seen = yield Move(row, then)
            assert seen is not None
            x0 = self._langevin(seen, y.double(), s.ratio, square, (i + 1) * LEVEL)
            t = points[i + 1]
            made = t.alpha * x0 + t.sigma * seen.normal((i + 1) * LEVEL, 1).double()
            seen.slots[1].copy_(made)
            move_to = last
        yield Move(move_to, None)
        return {"levels": len(points) - 1, "norm": math.sqrt(square)}

    def _inner(self, run: Run, s: Point) -> list[Point]:
        """The points of a level's ODE, whose last call's estimate is x0hat."""
        low = run.process.t_min
        count = self.ode_steps if s.t > low else 1
        later = [s.t + (low - s.t) * j / count for j in range(1, count)]
        return [s, *map(run.process.at, later)]

    def _langevin(self, seen: Seen, y: Tensor, r: float, square: float, key: int) -> Tensor:
        """x0 [C, *pixel] float64."""
        a, hat = self.made, seen.denoised.double()
        x0, inner, outer = hat, 1.0 / r**2, 1.0 / self.sigma_y**2
        e = self.step / (inner + square * outer)
        keys = range(key + 1, key + 1 + self.langevin)
        for first in range(0, self.langevin, DRAWN):
            for z in seen.normals(keys[first : first + DRAWN]).double():
                pull = a.adjoint(a.residual(y[None], x0[None]))[0]
                x0 = x0 - e * (inner * (x0 - hat) - outer * pull) + math.sqrt(2.0 * e) * z
        return x0

    def _square(self, shape: tuple[int, ...], y: Tensor) -> float:
        """||A||^2, the largest eigenvalue of A^T A."""
        from .operators import normals
        from .sums import norm

        a = self.made
        v, size = normals(shape, 0, y.device)[:1].double(), 0.0
        for _ in range(POWER):
            v = v / max(norm(v), 1e-30)
            v = a.adjoint(a.apply(v))
            size = norm(v)
        return size
