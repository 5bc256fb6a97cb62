"""Where the levels of a grid begin and end, and which table its timesteps are of."""

from __future__ import annotations

import math

import numpy as np

from .discrete import Discrete
from .gaussian import Array, GaussianProcess, Point


def ratio_ends(process: GaussianProcess) -> tuple[float, float]:
    """sigma / alpha of a run's first and last time. Raises ValueError where one has no logarithm."""
    start = process.noisiest
    if not math.isfinite(start.lam):
        raise ValueError(
            f"{type(process).__name__} has alpha = 0 at its first time t={start.t:g}, where the "
            f"noise-to-signal ratio is infinite; use grid 'uniform' or 'shift', or give times="
        )
    return start.ratio, noisy_end(process).ratio


def noisy_end(process: GaussianProcess) -> Point:
    """The last time of a run, before clean data. Raises ValueError where that is clean data itself."""
    end = process.at(process.t_min)
    if end.sigma == 0.0:
        raise ValueError(
            f"{type(process).__name__} has no noise at its last time t={end.t:g}, whose logarithm this grid "
            "takes; give a greater t_min, use grid 'uniform' with end='t_min', or give times="
        )
    return end


def between_ends(process: GaussianProcess, ratio: Array) -> list[Point]:
    """The points of levels that go from a run's first time to its last, which both are the process's own."""
    made = [process.at_ratio(g) for g in ratio.tolist()]
    ends = [process.noisiest, process.at(process.t_min)][: len(made)]
    return ends[:1] + made[1:-1] + ends[1:]


def table_of(process: GaussianProcess, name: str, n: int) -> int:
    """How many timesteps a discrete process has. Raises ValueError where it has less than n, or none."""
    if not isinstance(process, Discrete):
        raise ValueError(
            f"grid {name!r} picks timesteps of a discrete table, and {type(process).__name__} has "
            f"none; use 'uniform' or 'kl_optimal'"
        )
    count = len(process.alpha_bar)
    if n > count:
        raise ValueError(
            f"{n} steps were asked of a table of {count} timesteps; ask for at most {count}"
        )
    return count


def whole_where_apart(process: GaussianProcess, times: Array) -> Array:
    """Times of a discrete table as whole timesteps, where these stay apart."""
    whole = np.round(times)
    return whole if isinstance(process, Discrete) and np.all(np.diff(whole) < 0.0) else times
