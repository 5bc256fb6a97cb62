"""The levels that diffusers' schedulers visit, in families of classes, with the end of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ...processes import Discrete, FlowMatching, GaussianProcess, Point
from ...processes.grids import distilled

Fields = Mapping[str, Any]
Array = np.ndarray


def spaced(c: Fields, n: int, last: int, extra: int = 0) -> Array:
    """n timesteps of a table that ends before `last`, noisiest first, of a spacing that has n + extra."""
    count, spacing = c["num_train_timesteps"], c.get("timestep_spacing", "linspace")
    if spacing == "linspace":
        times: Array = np.linspace(0.0, last - 1.0, n + extra)[::-1]
    elif spacing == "leading":
        times = np.arange(n + extra)[::-1] * float(last // (n + extra)) + c["steps_offset"]
    else:
        times = np.round(np.arange(float(last), 0.0, -count / n)) - 1.0
    if n > count or times[0] > count - 1.0:
        raise ValueError(
            f"{n} steps of timestep_spacing={spacing!r} with steps_offset={c.get('steps_offset', 0)} begin "
            f"outside the {count} timesteps; ask for fewer"
        )
    return times[:n]


def ended(made: list[Point], end: Point) -> list[Point]:
    """A run with its end. A step that stays on its level changes nothing: it is left out."""
    return made if math.isclose(made[-1].lam, end.lam, abs_tol=1e-6) else [*made, end]


def strided(c: Fields, process: Discrete, n: int) -> list[Point]:
    """DDIM, DDPM, PNDM: whole timesteps, then alpha_bar of 1, or the first of the table."""
    times = np.round(spaced(c, n, c["num_train_timesteps"]))
    zero = c.get("set_alpha_to_one", True)
    return ended([process.at(t) for t in times], process.clean if zero else process.at(0.0))


def few(c: Fields, process: Discrete, n: int, zero: bool = True) -> list[Point]:
    """LCM and TCD: places of the distillation's timesteps."""
    made = [process.at(t) for t in distilled(process, n, c["original_inference_steps"])]
    return ended(made, process.clean if zero else process.at(0.0))


def along(kind: str, high: float, low: float, n: int) -> Array:
    """n levels from high to low."""
    if kind == "use_karras_sigmas":
        made = np.linspace(high ** (1 / 7), low ** (1 / 7), n) ** 7
    else:
        made = np.exp(np.linspace(math.log(high), math.log(low), n))
    made[-1], made[0] = low, high
    return made


def asked(c: Fields) -> list[str]:
    """The fields that ask for other levels than those of timesteps."""
    flags = ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas", "use_flow_sigmas")
    return [flag for flag in flags if c.get(flag)]


def labelled(process: Discrete, ratios: Array, label: Callable[[float], float]) -> list[Point]:
    """The points of levels, told the label that a class makes of the level's place in the table."""
    made = [process.at_ratio(g) for g in ratios.tolist()]
    # The last timestep's, though a terminal 4096 may not be the largest.
    if ratios[0] == process.ratios[-1]:
        made[0] = process.noisiest
    return [replace(at, t=float(label(at.t))) for at in made]


def _ends(c: Fields, ratios: Array) -> tuple[float, float]:
    """The levels that Karras and exponential ones run between."""
    high, low = c.get("sigma_max"), c.get("sigma_min")
    return ratios[0] if high is None else high, ratios[-1] if low is None else low


def interpolated(c: Fields, process: Discrete, n: int, rounds: tuple[str, ...] = ()) -> list[Point]:
    """Euler, Heun, LMS and the like: fractional timesteps whose sigma is interpolated."""
    times = spaced(c, n, c["num_train_timesteps"])
    ratios = np.interp(times, np.arange(float(len(process.ratios))), process.ratios)
    if flags := asked(c):
        label = round if flags[0] in rounds else float
        made = labelled(process, along(flags[0], *_ends(c, ratios), n), label)
    else:
        levels = zip(ratios.tolist(), times.tolist(), strict=True)
        made = [replace(process.at_ratio(g), t=t) for g, t in levels]
    zero = c.get("final_sigmas_type", "zero") == "zero"
    return ended(made, process.clean if zero else process.at(0.0))


ROUNDED = ("use_karras_sigmas", "use_lu_lambdas")


def whole(
    c: Fields,
    process: GaussianProcess,
    n: int,
    rounds: tuple[str, ...] = ROUNDED,
    stays: bool = False,
) -> list[Point]:
    """DPM-Solver, DEIS, UniPC and SA-Solver: timesteps of a run of n + 1 without the last, told whole.

    rounds  the fields whose labels are rounded; others are cut off
    stays   with other levels than those of timesteps, "sigma_min" ends on the last of them
    """
    zero = c.get("final_sigmas_type", "sigma_min") == "zero"
    if isinstance(process, FlowMatching):
        made = flow_sigmas(c, n)
        return ended(made, process.clean if zero else made[-1])
    assert isinstance(process, Discrete)
    if flags := asked(c):
        label = round if flags[0] in rounds else math.floor
        made = labelled(process, along(flags[0], *_ends(c, process.ratios[::-1]), n), label)
        return ended(made, process.clean if zero else made[-1] if stays else process.at(0.0))
    clipped = int(np.sum(-np.log(process.ratios) < c.get("lambda_min_clipped", -math.inf)))
    extra = 0 if c.get("timestep_spacing") == "trailing" else 1
    times = np.round(spaced(c, n, c["num_train_timesteps"] - clipped, extra)).astype(int)
    made = [replace(process.at_ratio(process.ratios[t]), t=float(t)) for t in times]
    return ended(made, process.clean if zero else process.at(0.0))


def multistep(c: Fields, process: GaussianProcess, n: int) -> list[Point]:
    """DPM-Solver's of several steps: of a cosine table all labels are cut off."""
    return whole(c, process, n, () if c["beta_schedule"] == "squaredcos_cap_v2" else ROUNDED)


def flow_sigmas(c: Fields, n: int) -> list[Point]:
    """use_flow_sigmas: the levels of straight paths; UniPC starts at all noise but 1e-6."""
    count, unipc = c["num_train_timesteps"], "shift_terminal" in c
    if unipc:
        sigmas = shift(np.linspace(1.0, 1.0 / count, n + 1)[:-1], c["flow_shift"])
        sigmas = stretch(sigmas, c["shift_terminal"])
        sigmas[0] -= 1e-6 * (abs(sigmas[0] - 1.0) < 1e-6)
    else:
        # In this order of operations, for the labels that are cut off below.
        sigmas = shift(1.0 - np.linspace(1.0, 1.0 / count, n + 1)[:0:-1], c["flow_shift"])
    return [Point(math.floor(s * count) / count, 1.0 - s, s) for s in sigmas.tolist()]


def shift(sigmas: Array, by: float) -> Array:
    """by s / (1 + (by - 1) s) (Esser et al. 2024, eq. 23)."""
    return by * sigmas / (1.0 + (by - 1.0) * sigmas)


def stretch(sigmas: Array, last: float | None) -> Array:
    """1 - s scaled so that the levels end at `last`."""
    return 1.0 - (1.0 - sigmas) * (1.0 - last) / (1.0 - sigmas[-1]) if last else sigmas


def flow(c: Fields, process: FlowMatching, n: int) -> list[Point]:
    """Flow matching: uniform from 1 to the shifted last level of training, and shifted again."""
    first, by = 1.0 / c["num_train_timesteps"], c["shift"]
    sigmas = shift(np.linspace(1.0, float(shift(np.array(first), by)), n), by)
    sigmas = stretch(sigmas, c.get("shift_terminal"))
    if flags := asked(c):
        sigmas = along(flags[0], sigmas[0], sigmas[-1], n)
    return [*map(process.at, np.minimum(sigmas, 1.0)), process.clean]
