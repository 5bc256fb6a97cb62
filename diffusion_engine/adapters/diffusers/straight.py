"""The levels of straight paths, of EDM's and of consistency models, and of IPNDM; see levels.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...processes import EDM, FlowMatching, GaussianProcess, Point, TrigFlow
from .levels import NOTHING, Array, Asked, Fields, Table, along, asked, between, chosen
from .tables import table

Levels = Callable[[Fields, Any, int, Asked], list[Point]]


def shifted(c: Fields, sigmas: Array, given: Asked, field: str) -> Array:
    """by s / (1 + (by - 1) s) (Esser et al. 2024, eq. 23), `by` a field, or of mu where it is dynamic."""
    by = c[field]
    if c.get("use_dynamic_shifting"):
        if given.mu is None:
            raise ValueError(
                "use_dynamic_shifting of the scheduler takes its shift from mu: give mu="
            )
        by = given.mu if c["time_shift_type"] == "linear" else math.exp(given.mu)
    return by * sigmas / (1.0 + (by - 1.0) * sigmas)


def stretch(sigmas: Array, last: float | None) -> Array:
    """1 - s scaled so that the levels end at `last`."""
    # In this order of operations, for the labels that are cut off.
    return 1.0 - (1.0 - sigmas) / ((1.0 - sigmas[-1]) / (1.0 - last)) if last else sigmas


def straight(sigmas: Array, times: Sequence[float] | Array, count: int) -> list[Point]:
    """The points of straight paths, told count t."""
    levels = np.asarray(sigmas, np.float32).tolist()
    return [Point(float(t) / count, 1.0 - s, s) for s, t in zip(levels, times, strict=True)]


def or_straight(of_table: Levels) -> Levels:
    """The levels of a table's class, whose use_flow_sigmas are those of straight paths."""

    def levels(c: Fields, process: GaussianProcess, n: int, given: Asked = NOTHING) -> list[Point]:
        if not isinstance(process, FlowMatching):
            return of_table(c, process, n, given)
        sigmas, count = flow_sigmas(c, n, given), c["num_train_timesteps"]
        made = straight(sigmas, np.floor(sigmas * count), count)
        zero = c.get("final_sigmas_type", "sigma_min") == "zero"
        return [*made, process.clean if zero else made[-1]]

    return levels


def flow_sigmas(c: Fields, n: int, given: Asked) -> Array:
    """use_flow_sigmas; UniPC starts at all noise but 1e-6."""
    count, unipc = c["num_train_timesteps"], "shift_terminal" in c
    if not unipc:
        # In this order of operations, for the labels that are cut off.
        sigmas = 1.0 - np.linspace(1.0, 1.0 / count, n + 1)[:0:-1]
        return shifted(c, sigmas, given, "flow_shift")
    if c["use_karras_sigmas"]:
        ratios = between(c, "use_karras_sigmas", Table.of(table(c)).ratios[::-1], n)
        return ratios / (ratios + 1.0)
    sigmas = np.linspace(1.0, 1.0 / count, n + 1)[:-1]
    if given.sigmas is not None:
        sigmas = np.asarray(given.sigmas, np.float64)
    sigmas = stretch(shifted(c, sigmas, given, "flow_shift"), c["shift_terminal"])
    sigmas[0] -= 1e-6 * (abs(sigmas[0] - 1.0) < 1e-6)
    return sigmas


def flow(c: Fields, process: FlowMatching, n: int, given: Asked = NOTHING) -> list[Point]:
    """Flow matching: uniform from 1 to the shifted last level of training, and shifted again."""
    count, by = c["num_train_timesteps"], c["shift"]
    times = None if given.timesteps is None else np.asarray(given.timesteps, np.float32)
    if given.sigmas is not None:
        sigmas = np.asarray(given.sigmas, np.float32)
    elif times is not None:
        sigmas = times / count
    else:
        ends: Array = np.array([1.0, np.float32(1.0 / count)])
        if not c.get("use_dynamic_shifting"):
            ends = by * ends / (1.0 + (by - 1.0) * ends)
        sigmas = np.linspace(ends[0], ends[1], n)
    # set_shift moves the levels, and not the ends that the scheduler was made with.
    sigmas = shifted(c, sigmas, given, "set_shift" if "set_shift" in c else "shift")
    sigmas = stretch(sigmas, c.get("shift_terminal"))
    if flags := asked(c):
        sigmas = between(c, flags[0], sigmas, n)
    sigmas = np.minimum(np.asarray(sigmas, np.float32), np.float32(1.0))
    return [*straight(sigmas, sigmas * count if times is None else times, count), process.clean]


def edm(c: Fields, process: EDM, n: int, given: Asked = NOTHING) -> list[Point]:
    """EDM's: Karras or exponential levels from sigma_max to sigma_min."""
    kind = f"use_{c['sigma_schedule']}_sigmas"
    levels = along(kind, c["sigma_max"], c["sigma_min"], n, c.get("rho", 7.0))
    made = [Point(g, 1.0, g) for g in np.asarray(levels, np.float32).tolist()]
    return [*made, process.clean if c["final_sigmas_type"] == "zero" else made[-1]]


def consistency(c: Fields, process: EDM, n: int, given: Asked = NOTHING) -> list[Point]:
    """Consistency models': places of a Karras grid of num_train_timesteps levels, then sigma_min."""
    count = c["num_train_timesteps"]
    if given.timesteps is None:
        if n > count:
            raise ValueError(f"{n} steps were asked of num_train_timesteps={count}; ask for fewer")
        places = np.arange(n)[::-1] * float(count // n)
    else:
        places = chosen(c, n, given)
    # The grid of diffusers is turned: its first place is the noisiest.
    ramp = places[::-1] / (count - 1.0)
    low, high = c["sigma_min"] ** (1.0 / c["rho"]), c["sigma_max"] ** (1.0 / c["rho"])
    made = [Point(g, 1.0, g) for g in ((high + ramp * (low - high)) ** c["rho"]).tolist()]
    return [*made, process.clean]


def trig(c: Fields, process: TrigFlow, n: int, given: Asked = NOTHING) -> list[Point]:
    """TrigFlow's: evenly from 1.5708, a little beyond pi / 2, to 0; two steps meet at 1.3."""
    times = np.linspace(1.5708, 0.0, n + 1).tolist()
    if n == 2:
        times[1] = 1.3
    return [process.at(min(t, process.t_max)) for t in times]


def angles(c: Fields, process: GaussianProcess, n: int, given: Asked = NOTHING) -> list[Point]:
    """IPNDM's: sigma = sin(pi u / 2)^2 at even u."""
    if c["trained_betas"] is not None:
        levels = np.asarray(c["trained_betas"], np.float64)
        if len(levels) != n + 1:
            raise ValueError(
                f"trained_betas has {len(levels)} entries, which are the levels of {len(levels) - 1} steps "
                f"and their end; {n} were asked for"
            )
    else:
        levels = np.sin(0.5 * np.pi * np.linspace(1.0, 0.0, n + 1)) ** 2
    levels = np.asarray(levels, np.float32)
    alphas = np.sqrt(np.float32(1.0) - levels**2)
    times = np.arctan2(levels, alphas) / np.float32(np.pi) * 2
    rows = zip(times.tolist(), alphas.tolist(), levels.tolist(), strict=True)
    return [Point(t, alpha, sigma) for t, alpha, sigma in rows]
