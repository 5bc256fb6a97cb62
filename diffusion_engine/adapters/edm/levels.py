"""EDM's law where a network knows some levels alone, and the grid of its sampler."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...processes import EDM, GaussianProcess, Point

LEAST, MOST, RHO = 0.002, 80.0, 7.0  # of EDM's sampler


def bounds(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    """The sampler's own ends, within those of a network."""
    return max(LEAST, sigma_min), min(MOST, sigma_max)


@dataclass(frozen=True)
class Table:
    """The nearest of rising levels."""

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        falls = any(a >= b for a, b in zip(self.levels, self.levels[1:], strict=False))
        if len(self.levels) < 2 or falls:
            raise ValueError("a table of levels has 2 or more of them, and they rise")

    def place(self, sigma: float) -> int:
        """The index of the level nearest to sigma."""
        above = min(max(bisect_left(self.levels, sigma), 1), len(self.levels) - 1)
        low, high = self.levels[above - 1], self.levels[above]
        return above if high - sigma < sigma - low else above - 1

    def __call__(self, sigma: float) -> float:
        return self.levels[self.place(sigma)]

    def timestep(self, at: Point) -> float:
        """The index of a level, the first above 0 being 0: what iDDPM's network is told."""
        return self.place(at.ratio) - 1.0


@dataclass(frozen=True, kw_only=True)
class Rounded(EDM):
    """EDM's law, of whose levels a network knows some: a level is the `nearest` of them, also one that noise
    is added up to. Times that a user gives are taken as they are."""

    nearest: Callable[[float], float]

    def at_ratio(self, g: float) -> Point:
        sigma = float(self.nearest(float(g)))
        return Point(sigma, 1.0, sigma)


def rounded_karras(process: GaussianProcess, n: int) -> list[Point]:
    """n levels evenly spaced in sigma^(1/7), each then rounded: the sampler of EDM (Karras et al. 2022).

    Those that are rounded to one level are visited once: a step that stays there changes nothing.
    """
    ends = process.t_max ** (1.0 / RHO), process.t_min ** (1.0 / RHO)
    made = [process.at_ratio(g) for g in (np.linspace(*ends, n) ** RHO).tolist()]
    return list(dict.fromkeys(made))
