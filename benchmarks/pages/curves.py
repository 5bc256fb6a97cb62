"""The picture of docs/samplers.md: error against network calls, a panel for each family of solvers.

All panels of a half have the same axes and, pale, the curves of all its solvers. Those of the panel's family
have their names, its best one is thick, and the best of the half is dashed in every panel.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from diffusion_engine import SOLVERS

Curve = list[tuple[int, float]]
Family = dict[tuple[str, ...], Curve]  # several names of one curve

# The panels by the solvers' modules; a module that is in none has a panel of its own.
FAMILIES: dict[str, tuple[str, ...]] = {
    "Euler, Heun, DDIM": ("euler", "heun", "ddim", "heunpp", "gradient"),
    "DPM-Solver, multistep": ("dpmpp",),
    "DPM-Solver, singlestep": ("dpm_solver", "singlestep"),
    "exponential, UniPC": ("exponential", "unipc", "stork", "learned"),
    "Adams, PNDM, GENIE": ("adams", "pndm", "genie"),
    "ancestral": ("euler", "heun", "ddim", "dpmpp_2s", "vdm", "overshoot"),
    "DPM-Solver of the SDE": ("dpmpp_sde",),
    "ER-SDE, SEEDS, SA": ("er_sde", "seeds", "sa_solver"),
    "score SDEs, RL": ("sde", "ald", "policy"),
    "CLD": ("cld", "cld_exp", "cld_sscs"),
    "students": ("consistency", "ddgan", "flow_map", "tcd", "trigflow"),
}
STUDENTS = "students"  # run few calls
HALVES = (
    (False, "Solvers of the ODE", "distance from its solution", "#0b6e99"),
    (True, "Stochastic solvers", "distance from the data's law", "#b3541e"),
)
TICKS, FEW = (6, 12, 24, 48), (1, 2, 4, 8)
COMPARED = (12, 24, 48)  # calls at which a best one is found
LIMITS = {False: (3e-4, 3e0), True: (4e-3, 1e0)}
INK, MIDDLE, PALE, GRID = "#22272b", "#66707a", "#dfe3e6", "#eef0f2"
SHADES = ("#7d8893", "#94611b", "#5f7f3a", "#7a5195", "#3b7a78", "#a23b52", "#8a8f2a", "#4d6b9a")
WIDTH, ROW, HEAD = 12.0, 3.5, 1.1  # inches of 100 dots
COLUMNS = (0.065, 0.55)
SMALL, LARGE = 18, 24


def draw(pyplot: ModuleType, curves: dict[str, Curve], floor: float, path: Path) -> None:
    """Writes the PNG.

    floor  the distance from the law that as many exact samples show
    """
    halves = [panels_of(curves, noisy) for noisy, *_ in HALVES]
    rows = [math.ceil(len(panels) / 2) for panels in halves]
    height = top = sum(HEAD + ROW * count for count in rows)
    figure = pyplot.figure(figsize=(WIDTH, height))
    for (noisy, title, what, color), panels, count in zip(HALVES, halves, rows, strict=True):
        least = floor if noisy else 0.0
        solvers = {n: c for f, own in panels.items() if f != STUDENTS for n, c in own.items()}
        best = best_of(solvers, least)
        named = {"fontsize": SMALL, "color": MIDDLE}
        figure.text(0.015, (top - 0.4) / height, title, fontsize=LARGE, color=color, weight="bold")
        figure.text(0.34, (top - 0.4) / height, f"{what}, against network calls", **named)
        figure.text(
            0.34, (top - 0.68) / height, f"dashed: {best[0]}, the best at 12 to 48", **named
        )
        top -= HEAD
        for place, (family, own) in enumerate(panels.items()):
            y = top - ROW * (1 + place // 2) + 0.62
            axes = figure.add_axes((COLUMNS[place % 2], y / height, 0.2, (ROW - 1.05) / height))
            if family != STUDENTS:
                lines(axes, solvers.values(), PALE, 1.2)
                lines(axes, [solvers[best]], INK, 2.0, "--")
            if noisy:
                axes.axhline(floor, ls=":", color=MIDDLE, lw=2.0)
            frame(axes, family, noisy)
            axes.tick_params(labelleft=place % 2 == 0)
            family_of(axes, own, color, best_of(own, least))
        top -= ROW * count
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    with Image.open(path) as image:
        palette = image.convert("RGB").quantize(128)
    palette.save(path, optimize=True)


def panels_of(curves: dict[str, Curve], noisy: bool) -> dict[str, Family]:
    """The curves of each panel of a half."""
    made: dict[str, Family] = {}
    for name, curve in curves.items():
        if not curve or SOLVERS[name]().stochastic is not noisy:
            continue
        module = SOLVERS[name].__module__.rpartition(".")[2]
        families = [family for family, modules in FAMILIES.items() if module in modules]
        panel = made.setdefault(families[-1 if noisy else 0] if families else title_of(name), {})
        same = next((names for names, known in panel.items() if alike(known, curve)), ())
        panel[*same, name] = panel.pop(same, curve)
    listed = [family for family in FAMILIES if family in made]
    ordered = [f for f in listed if f != STUDENTS] + [f for f in made if f not in listed]
    return {f: made[f] for f in [*ordered, *(f for f in listed if f == STUDENTS)]}


def title_of(name: str) -> str:
    """Of a family that is not listed: what its module's docstring begins with."""
    said = (inspect.getdoc(inspect.getmodule(SOLVERS[name])) or name).splitlines()[0]
    return said.partition(":")[0].partition(",")[0].rstrip(".")[:24]


def alike(one: Curve, other: Curve) -> bool:
    return len(one) == len(other) and np.allclose(one, other, rtol=1e-3, atol=0)


def best_of(family: Family, least: float) -> tuple[str, ...]:
    """Whose mean log error is least; none is better than exact samples are."""

    def score(names: tuple[str, ...]) -> float:
        calls, errors = np.array(family[names]).T
        logs = np.log(np.maximum(errors, max(least, 1e-12)))
        return float(np.interp(np.log(COMPARED), np.log(calls), logs).mean())

    return min(family, key=score)


def lines(axes: Any, curves: Iterable[Curve], color: str, width: float, style: str = "-") -> None:
    for curve in curves:
        axes.plot(*zip(*curve, strict=True), style, color=color, lw=width, zorder=1)


def frame(axes: Any, family: str, noisy: bool) -> None:
    """The axes that all panels of a half have."""
    axes.set_title(family, fontsize=SMALL + 2, loc="left", color=INK, weight="bold")
    ticks = FEW if family == STUDENTS else TICKS
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(0.75 * ticks[0], 1.2 * ticks[-1])
    axes.set_ylim(*LIMITS[noisy])
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.tick_params(labelsize=SMALL - 1, colors=MIDDLE, length=0)
    axes.grid(True, color=GRID, lw=1)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def family_of(axes: Any, own: Family, color: str, best: tuple[str, ...]) -> None:
    """The curves of a family with their names at the right, from the highest end to the lowest."""
    low, high = (math.log(limit) for limit in axes.get_ylim())
    others = iter(SHADES)
    labels = []
    for names, curve in sorted(own.items(), key=lambda item: -item[1][-1][1]):
        shade = color if names == best else next(others, MIDDLE)
        mark = ".-" if len(curve) > 1 else "o"
        look = {"lw": 4.0, "zorder": 4} if names == best else {"lw": 2.0, "zorder": 3}
        axes.plot(*zip(*curve, strict=True), mark, color=shade, ms=8, **look)
        end = min(max(math.log(curve[-1][1]), low), high)
        at = (curve[-1][0], math.exp(end))
        led = len(names) // 2
        labels += [(name, at, shade, names == best, i == led) for i, name in enumerate(names)]
    heights = [(math.log(at[1]) - low) / (high - low) for _, at, *_ in labels]
    for (name, at, shade, bold, led), place in zip(labels, apart(heights, 0.12), strict=True):
        arrow = {"arrowstyle": "-", "relpos": (0.0, 0.5), "color": shade, "lw": 1.2, "alpha": 0.7}
        axes.annotate(
            name, at, (1.07, place), textcoords="axes fraction", va="center", fontsize=SMALL, color=shade,
            weight="bold" if bold else "normal", arrowprops=arrow if led else None, annotation_clip=False,
        )  # fmt: skip


def apart(places: Sequence[float], gap: float, rounds: int = 300) -> list[float]:
    """Falling places of labels, moved as little as keeps them a gap apart and near 0 to 1."""
    made = np.array(places, float)
    for _ in range(rounds):
        lack = np.maximum(gap - (made[:-1] - made[1:]), 0.0) / 2.0
        made[:-1] += lack
        made[1:] -= lack
        made = np.clip(made, -0.06, 1.06)
    return [float(place) for place in made]
