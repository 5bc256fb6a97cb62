"""Annealed Langevin dynamics: many steps at one noise level, then the next level."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ..networks.parameterisation import Parameterisation
from ..plan.linear import denoised, normal, x
from ..processes import VP, Discrete, GaussianProcess, Point
from ..processes.grids import Grid
from .base import Points, Solver, Update, finite_start, score_of

# Steps a level and the ratio r.
PRESETS = {
    "ncsn": (100, 0.316),
    "ncsnv2": (5, 0.176),
    "ncsnv2-celeba": (5, 0.128),
    "ncsnv2-bedroom": (3, 0.095),
}


@dataclass(frozen=True)
class ALD(Solver):
    """x <- x + e score + sqrt(2 e) z, e = 2 a (snr sigma)^2, n_steps times at every level.

    preset   "ncsn", "ncsnv2", "ncsnv2-celeba" or "ncsnv2-bedroom": their n_steps and snr, published with
             steps=10, 232, 500 and 1086 levels of VE(sigma_max=1, 50, 90 and 190). n_steps have to shrink
             the noise of a level to the next: NCSNv2's few do so where levels are hundreds
    n_steps  steps a level; None is the preset's
    snr      None is the preset's
    denoise  one more call makes the last x its `denoised` (NCSNv2)
    """

    name: ClassVar[str] = "ald"
    source: ClassVar[str] = "Song & Ermon 2019, algorithm 1; 2020 (NCSNv2)"
    differs: ClassVar[str] = (
        "where alpha changes, x is scaled with it between levels: the signal needs no time to grow"
    )
    order = 0  # more levels do not mend steps that are as long beside each level's noise
    keeps_noise: ClassVar[bool] = False
    on_path: ClassVar[bool] = False
    preset: str = "ncsn"
    n_steps: int | None = None
    snr: float | None = None
    denoise: bool = True

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset={self.preset!r}: choose {', '.join(PRESETS)}")
        count, snr = self.rule
        if not isinstance(count, int) or count < 1 or not 0.0 < snr < 1.0:
            raise ValueError(
                f"n_steps={count!r}, snr={snr:g}: take 1 step a level or more, and an snr "
                "between 0 and 1"
            )

    @property
    def rule(self) -> tuple[int, float]:
        """Steps a level, and snr."""
        count, snr = PRESETS[self.preset]
        return (
            count if self.n_steps is None else self.n_steps,
            snr if self.snr is None else self.snr,
        )

    @property
    def calls(self) -> int:  # type: ignore[override]
        return self.rule[0]

    @property
    def stochastic(self) -> bool:
        return True

    def default_grid(self, process: GaussianProcess) -> str | Grid | None:
        geometric = not isinstance(process, Discrete) and process.at(process.t_max).alpha > 0.0
        return "exponential" if geometric else None

    def objection(self, parameterisation: Parameterisation, points: Points) -> str | None:
        return finite_start(parameterisation.process, points)

    def updates(self, process: GaussianProcess, points: Points) -> Iterator[Update]:
        count, snr = self.rule
        levels = [p for p in points if p.sigma > 0.0]
        ends = self.denoise and points[-1].sigma == 0.0
        for s, t in zip(levels, [*levels[1:], levels[-1] if ends else points[-1]], strict=True):
            e = 2.0 * kept(process, s) * (snr * s.sigma) ** 2
            step = x + e * score_of(s) + math.sqrt(2.0 * e) * normal(0)
            for _ in range(count - 1):
                yield Update(s, {0: step}, s)
            yield Update(s, {0: step * (t.alpha / s.alpha)}, t)
        if ends:
            yield Update(levels[-1], {0: denoised}, points[-1])


def kept(process: GaussianProcess, at: Point) -> float:
    """a: 1 - beta of the variance preserving chain (of 1000 steps), 1 elsewhere."""
    if isinstance(process, Discrete):
        return 1.0 - float(process.beta(at.t))
    return 1.0 - float(process.beta(at.t)) / 1000.0 if isinstance(process, VP) else 1.0
