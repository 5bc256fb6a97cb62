"""The levels that diffusers' schedulers visit, in families of classes: steps + 1 points, the end among them.

Tables, levels and labels have float32's rounding where diffusers has it: labels that are cut off to whole
numbers, and levels next to pure noise, hang on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ...processes import Discrete, Point
from ...processes.beta import quantile

Fields = Mapping[str, Any]
Array = np.ndarray


@dataclass(frozen=True)
class Asked:
    """What a run is asked beside its steps: diffusers' set_timesteps has the same names."""

    timesteps: Sequence[float] | None = None
    sigmas: Sequence[float] | None = None
    mu: float | None = None


NOTHING = Asked()


@dataclass(frozen=True)
class Table:
    """sigma / alpha of every timestep of a table, float32."""

    ratios: Array

    @classmethod
    def of(cls, process: Discrete) -> Table:
        bar = np.asarray(process.alpha_bar, np.float32)
        bar[-1] = bar[-1] or np.float32(2.0**-24)
        return cls(np.sqrt((np.float32(1.0) - bar) / bar))

    def place(self, ratio: float) -> float:
        """The timestep of a level, interpolated in its logarithm and held within the table."""
        logs = np.log(self.ratios)
        log = np.log(np.maximum(ratio, 1e-10))
        low = min(int(np.cumsum(log >= logs).argmax()), len(logs) - 2)
        share = np.clip((logs[low] - log) / (logs[low] - logs[low + 1]), 0.0, 1.0)
        return float((1.0 - share) * low + share * (low + 1))

    def at(self, times: Array) -> Array:
        """The levels of timesteps, interpolated in sigma / alpha."""
        return np.interp(times, np.arange(len(self.ratios)), self.ratios)


def spaced(c: Fields, n: int, last: int, extra: int = 0) -> Array:
    """n timesteps of a table that ends before `last`, noisiest first, of a spacing that has n + extra.

    Raises ValueError where they lie outside the table.
    """
    count, spacing = c["num_train_timesteps"], c.get("timestep_spacing", "linspace")
    offset = c.get("steps_offset", 0) if spacing == "leading" else 0
    if spacing == "linspace":
        times: Array = np.linspace(0.0, last - 1.0, n + extra)[::-1][:n]
    elif spacing == "leading":
        times = np.arange(n + extra)[::-1][:n] * float(last // (n + extra)) + offset
    else:
        times = np.round(np.arange(float(last), 0.0, -count / n)) - 1.0
    if n > count or times[0] > count - 1.0:
        raise ValueError(
            f"{n} steps of timestep_spacing={spacing!r} with steps_offset={offset} begin outside the "
            f"num_train_timesteps={count} of the table; ask for fewer"
        )
    return times


def chosen(c: Fields, n: int, given: Asked, extra: int = 0, last: int | None = None) -> Array:
    """The timesteps that were given, or those of the spacing."""
    count = c["num_train_timesteps"]
    if given.timesteps is None:
        return spaced(c, n, count if last is None else last, extra)
    times = np.asarray(given.timesteps, np.float64)
    if not (times[0] <= count - 1 and times[-1] >= 0):
        raise ValueError(
            f"timesteps go from {times[0]:g} to {times[-1]:g}, and the table's are 0 to {count - 1}"
        )
    return times


def strided(c: Fields, process: Discrete, n: int, given: Asked = NOTHING) -> list[Point]:
    """DDIM, DDPM, PNDM: whole timesteps, then alpha_bar of 1, or the first of the table."""
    times = np.round(chosen(c, n, given))
    end = process.clean if c.get("set_alpha_to_one", True) else process.at(0.0)
    return [*(process.at(t) for t in times), end]


def few(
    c: Fields, process: Discrete, n: int, given: Asked = NOTHING, zero: bool = True
) -> list[Point]:
    """LCM and TCD: places of the distillation's timesteps."""
    if given.timesteps is not None:
        times = chosen(c, n, given)
    else:
        count, original = c["num_train_timesteps"], c["original_inference_steps"]
        if not n <= original <= count:
            raise ValueError(
                f"{n} steps of original_inference_steps={original} of num_train_timesteps={count}: each is "
                "at most the next"
            )
        own = np.arange(original, 0.0, -1.0) * (count // original) - 1.0
        times = own[np.floor(np.linspace(0, original, n, endpoint=False)).astype(int)]
    return [*(process.at(t) for t in times), process.clean if zero else process.at(0.0)]


FLAGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


def asked(c: Fields) -> list[str]:
    """The fields that ask for other levels than those of timesteps."""
    return [flag for flag in (*FLAGS, "use_flow_sigmas") if c.get(flag)]


def along(kind: str, high: float, low: float, n: int, rho: float = 7.0) -> Array:
    """n levels from high to low."""
    if kind == "use_karras_sigmas":
        ends = high ** (1.0 / rho), low ** (1.0 / rho)
        return (ends[0] + np.linspace(0.0, 1.0, n) * (ends[1] - ends[0])) ** rho
    if kind == "use_beta_sigmas":
        places = [quantile(p, 0.6, 0.6) for p in (1.0 - np.linspace(0.0, 1.0, n)).tolist()]
        return low + np.array(places) * (high - low)
    return np.exp(np.linspace(math.log(high), math.log(low), n))


def between(c: Fields, kind: str, levels: Array, n: int) -> Array:
    """n levels of a kind between the ends of others, or between sigma_max and sigma_min."""
    if kind == "use_lu_lambdas":
        first, last = np.log(levels[[0, -1]]).tolist()
        return np.exp(first + np.linspace(0.0, 1.0, n) * (last - first))
    high, low = c.get("sigma_max"), c.get("sigma_min")
    high = float(levels[0]) if high is None else high
    return along(kind, high, float(levels[-1]) if low is None else low, n)


def labelled(process: Discrete, ratios: Array, times: Sequence[float] | Array) -> list[Point]:
    """The points of levels, with what the network is told for them."""
    made = [process.at_ratio(g) for g in np.asarray(ratios, np.float32).tolist()]
    return [replace(at, t=float(t)) for at, t in zip(made, times, strict=True)]


def ending(c: Fields, process: Discrete, usual: str = "zero") -> Point:
    """The end of a run on a table: clean data, or the first timestep."""
    return process.clean if c.get("final_sigmas_type", usual) == "zero" else process.at(0.0)


def interpolated(
    c: Fields, process: Discrete, n: int, given: Asked = NOTHING, rounds: tuple[str, ...] = ()
) -> list[Point]:
    """Euler, Heun, LMS and the like: fractional timesteps whose sigma is interpolated."""
    table, flags = Table.of(process), asked(c)
    if given.sigmas is not None:
        levels = np.asarray(given.sigmas, np.float32)
        return closed(
            process,
            labelled(process, levels[:-1], [table.place(g) for g in levels[:-1]]),
            levels[-1],
        )
    times = np.asarray(chosen(c, n, given), np.float32)
    levels, end = table.at(times), ending(c, process)
    if c.get("interpolation_type", "linear") == "log_linear":
        high, low = np.log(table.ratios[[-1, 0]]).tolist()
        levels = np.exp(np.linspace(high, low, n + 1, dtype=np.float32))
        if not flags:
            return closed(process, labelled(process, levels[:-1], times), levels[-1])
    if flags:
        levels = between(c, flags[0], levels, n)
        times = np.array([table.place(g) for g in levels])
        times = np.round(times) if flags[0] in rounds else times
    return [*labelled(process, levels, times), end]


def closed(process: Discrete, made: list[Point], end: float) -> list[Point]:
    """A run with the level of its end."""
    return [*made, process.at_ratio(float(end)) if end > 0.0 else process.clean]


ROUNDED = ("use_karras_sigmas", "use_lu_lambdas")


def whole(
    c: Fields,
    process: Discrete,
    n: int,
    given: Asked = NOTHING,
    rounds: tuple[str, ...] = ROUNDED,
    stays: bool = False,
) -> list[Point]:
    """DPM-Solver, DEIS, UniPC: timesteps of a run of n + 1 without the last, told whole.

    rounds  the fields whose labels are rounded; others are cut off
    stays   with other levels than those of timesteps, "sigma_min" ends on the last of them
    """
    table, end = Table.of(process), ending(c, process, "sigma_min")
    if flags := asked(c):
        levels = between(c, flags[0], table.ratios[::-1], n)
        times = np.array([table.place(g) for g in levels])
        times = np.round(times) if flags[0] in rounds else times
        made = labelled(process, levels, np.floor(times))
        return [*made, made[-1] if stays and end.sigma else end]
    limit = c.get("lambda_min_clipped", -math.inf)
    clipped = int(np.sum(-np.log(table.ratios) < limit))
    extra = 0 if c.get("timestep_spacing") == "trailing" else 1
    times = np.round(chosen(c, n, given, extra, c["num_train_timesteps"] - clipped))
    return [*labelled(process, table.at(times), times), end]


def multistep(c: Fields, process: Discrete, n: int, given: Asked = NOTHING) -> list[Point]:
    """DPM-Solver's of several steps: of a cosine table all labels are cut off."""
    cut = c["beta_schedule"] == "squaredcos_cap_v2"
    return whole(c, process, n, given, () if cut else ROUNDED)


LEAST = 1e-9  # of a level, by which a step that stays on it is made to fall


def falling(name: str, made: list[Point]) -> tuple[Point, ...]:
    """A run whose last step may stay on its level, as one that falls. Raises ValueError where levels rise."""
    last, end = made[-2:]
    if math.isclose(last.lam, end.lam, abs_tol=1e-6):
        made = [*made[:-1], replace(last, sigma=last.sigma * (1.0 - LEAST))]
    for i, (a, b) in enumerate(pairwise(made)):
        if not b.lam > a.lam:
            kind = "stay" if b.lam == a.lam else "rise"
            raise ValueError(
                f"the sigmas of {name} {kind} at entry {i + 1}, {a.ratio:g} and then {b.ratio:g}, and a run "
                "goes from noise to data: ask for fewer steps, or for other levels"
            )
    return tuple(made)
