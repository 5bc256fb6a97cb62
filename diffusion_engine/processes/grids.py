"""The times of a run. A grid gives `steps` intervals from noise to data as float64 times t.

`end="zero"` spends the last interval on going to clean data (sigma = 0), `end="t_min"` stops at the
process's t_min. Times and sigmas given by a user are used verbatim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from .. import checks
from . import GaussianProcess, Point, TrigFlow, published
from .ends import between_ends, ratio_ends, table_of

Array = np.ndarray
SAME_TIME = 1e-6  # a step between times as near as this would divide by float32's rounding
STEPS = "a run has a whole number of steps, 1 or more"
# Descending times or points; a grid with a true `complete` gives the end of the run too.
Grid = Callable[[GaussianProcess, int], Sequence[float | Point] | Array]


def uniform(process: GaussianProcess, n: int) -> Array:
    """n times evenly spaced in t, both ends included."""
    return np.linspace(process.t_max, process.t_min, n)


def quadratic(process: GaussianProcess, n: int) -> Array:
    """n times evenly spaced in sqrt(t)."""
    return np.linspace(math.sqrt(process.t_max), math.sqrt(process.t_min), n) ** 2


def quadratic_striding(process: GaussianProcess, n: int) -> Array:
    """n times evenly spaced in sqrt(t - t_min): CLD's quadratic striding (Dockhorn et al. 2022)."""
    return process.t_min + (process.t_max - process.t_min) * np.linspace(1.0, 0.0, n) ** 2


def karras(process: GaussianProcess, n: int, rho: float = 7.0) -> list[Point]:
    """n ratios g = sigma/alpha evenly spaced in g^(1/rho) (Karras et al. 2022, eq. 5)."""
    high, low = ratio_ends(process)
    ratio = np.linspace(high ** (1 / rho), low ** (1 / rho), n) ** rho
    return between_ends(process, ratio)


def exponential(process: GaussianProcess, n: int) -> list[Point]:
    """n ratios g = sigma/alpha in geometric progression; the same as lambda-uniform."""
    high, low = ratio_ends(process)
    return between_ends(process, np.exp(np.linspace(math.log(high), math.log(low), n)))


def lam_uniform(process: GaussianProcess, n: int) -> list[Point]:
    """n points evenly spaced in lam = log(alpha/sigma) (Lu et al. 2022)."""
    high, low = ratio_ends(process)
    return between_ends(process, np.exp(-np.linspace(-math.log(high), -math.log(low), n)))


def leading(process: GaussianProcess, n: int, offset: int = 0) -> Array:
    """(n-1) k, ..., k, 0 plus offset with k = count // n: diffusers' "leading"."""
    count = table_of(process, "leading", n)
    return np.arange(n)[::-1] * float(count // n) + offset


def trailing(process: GaussianProcess, n: int) -> Array:
    """round(count - j count / n) - 1: starts at the last timestep (Lin et al. 2024)."""
    count = table_of(process, "trailing", n)
    return np.round(count - np.arange(n) * (count / n)) - 1.0


def linspace(process: GaussianProcess, n: int) -> Array:
    """round(linspace(0, count - 1, n)), descending."""
    count = table_of(process, "linspace", n)
    return np.round(np.linspace(0.0, count - 1.0, n))[::-1] if n > 1 else np.array([count - 1.0])


def karras_at(
    process: GaussianProcess, n: int, indices: Sequence[int] | None = None, scales: int = 40
) -> list[Point]:
    """Places of a Karras grid of `scales` levels, but for the last, its cleanest: consistency models'.

    None takes n levels of a grid of n + 1.
    """
    if indices is None:
        return karras(process, n + 1)[:-1]
    if n != len(indices) - 1:
        raise ValueError(
            f"indices={list(indices)} are {len(indices) - 1} steps to clean data and {n} were asked for; "
            f"give steps={len(indices) - 1}"
        )
    levels = karras(process, scales)
    return [levels[k] for k in indices[:-1]]


def distilled(process: GaussianProcess, n: int, original: int = 50) -> Array:
    """n of the `original` timesteps k, 2 k, ... less 1, k = count // original: diffusers' for LCM."""
    stride = table_of(process, "distilled", max(n, original)) // original
    if n > original:
        raise ValueError(
            f"{n} steps were asked of {original} distilled ones; ask for at most {original}"
        )
    own = np.arange(original, 0.0, -1.0) * stride - 1.0
    return own[np.floor(np.linspace(0, original, n, endpoint=False)).astype(int)]


def angles(process: GaussianProcess, n: int, intermediate: float | None = None) -> list[Point]:
    """n levels whose arctan(sigma / alpha), over sigma_data on TrigFlow, falls evenly to 0; of two steps the
    second at `intermediate`, where that is given."""
    data = process.sigma_data if isinstance(process, TrigFlow) else 1.0
    first = process.at(process.t_max)
    made = np.linspace(math.atan(first.ratio / data), 0.0, n + 1)[:-1].tolist()
    if n == 2 and intermediate is not None:
        made[1] = intermediate
    return [first, *(process.at_ratio(data * math.tan(angle)) for angle in made[1:])]


# What `grid` may be by name: functions (process, n) -> n descending times or points.
GRIDS: dict[str, Grid] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "quadratic_striding": quadratic_striding,
    "karras": karras,
    "exponential": exponential,
    "lambda": lam_uniform,
    "leading": leading,
    "trailing": trailing,
    "linspace": linspace,
    **published.GRIDS,
}


def points(
    process: GaussianProcess, steps: int, grid: str | Grid | None = None, end: str = "zero"
) -> tuple[Point, ...]:
    """The steps + 1 points of a run, noisiest first.

    steps  number of intervals, 1 or more
    grid   a name of GRIDS or a function (process, n) -> n descending times or points; None is the
           process's own
    end    "zero": n = steps times, then clean data, or the grid's own end where it has one; "t_min":
           n = steps + 1 times, the last of which for most grids is t_min
    Raises ValueError on an unknown name or a step count below 1.
    """
    steps = checks.whole("steps", steps, 1, STEPS)
    if end not in ("zero", "t_min"):
        raise ValueError(f"end={end!r}: choose 'zero' (clean data) or 't_min'")
    grid = process.default_grid if grid is None else grid
    if isinstance(grid, str):
        if grid not in GRIDS:
            raise ValueError(
                f"unknown grid {grid!r}; the grids are {', '.join(GRIDS)}"
                f"{checks.nearest([grid], GRIDS)}"
            )
        grid = GRIDS[grid]
    wanted = "give a name, or a function (process, n) -> n descending times"
    made = checks.function("grid", grid, wanted)(process, steps + (end == "t_min"))
    times = checks.entries("the grid's times", made, wanted)
    if getattr(grid, "complete", False):
        return from_times(process, times if end == "zero" else times[:-1])
    return from_times(process, [*times, process.clean] if end == "zero" else times)


def from_times(process: GaussianProcess, times: Sequence[float | Point]) -> tuple[Point, ...]:
    """The points of a user's own times, verbatim: descending t; the clean time means sigma = 0.

    Points are taken as they are. Raises ValueError on a time that the process does not have.
    """
    listed = checks.entries("times", times, "give descending times t, as [0.9, 0.5]")
    given = [
        t if isinstance(t, Point) else checks.number(f"times[{i}]", t) for i, t in enumerate(listed)
    ]
    _check_descending("times", [t for t in given if not isinstance(t, Point)], len(given))
    for at in given:
        if isinstance(at, Point) and not (
            0.0 <= at.alpha < math.inf and 0.0 <= at.sigma < math.inf
        ):
            raise ValueError(f"{at} is no noise level: alpha and sigma are finite, and 0 or above")
    made = tuple(t if isinstance(t, Point) else process.at(t) for t in given)
    _check_levels(made)
    return made


def from_sigmas(process: GaussianProcess, sigmas: Sequence[float]) -> tuple[Point, ...]:
    """The points of a user's noise-to-signal ratios g = sigma/alpha, verbatim; a last 0 is clean data.

    One that the process does not reach keeps its value, and the network is told the nearest time.
    """
    listed = checks.entries("sigmas", sigmas, "give descending sigma / alpha, as [14.6, 1.0, 0.0]")
    sigmas = [checks.number(f"sigmas[{i}]", s) for i, s in enumerate(listed)]
    _check_descending("sigmas", sigmas, len(sigmas))
    if sigmas[-1] < 0.0:
        raise ValueError(f"sigmas end at {sigmas[-1]:g}; a noise level is 0 or above")
    made = tuple(process.at_ratio(g) if g > 0.0 else process.clean for g in sigmas)
    _check_levels(made)
    return made


def point_at(process: GaussianProcess, points: Sequence[Point], t: float) -> Point:
    """The point of a run at time t, to six digits, or the process's own where the run has none there.

    A run's point keeps its level, which is not always that of its t: a level beyond the process has the
    nearest time, and one made of sigma / alpha differs in the last bits. Of several at one time it is the
    one nearest to the process's level.
    """
    there = [p for p in points if math.isclose(p.t, t, rel_tol=SAME_TIME, abs_tol=1e-12)]
    if len(there) == 1:
        return there[0]
    own = process.at(t)
    return min(there, key=lambda p: abs(math.atan(p.ratio) - math.atan(own.ratio)), default=own)


def _check_descending(name: str, values: list[float], count: int) -> None:
    if count < 2:
        raise ValueError(f"{name} has {count} entries; a run needs at least 2 (one step)")
    for i, (a, b) in enumerate(pairwise(values)):
        if b >= a:
            kind = "repeats" if a == b else "rises"
            raise ValueError(
                f"{name} has to fall strictly, from noise to data; it {kind} at entry {i + 1} "
                f"({a:g}, then {b:g})"
            )


def _check_levels(made: tuple[Point, ...]) -> None:
    for a, b in pairwise(made):
        if not b.lam > a.lam:
            raise ValueError(
                f"sigma / alpha has to fall; it is {a.ratio:g} at t={a.t:g} and {b.ratio:g} at t={b.t:g}: "
                "drop one of them"
            )
