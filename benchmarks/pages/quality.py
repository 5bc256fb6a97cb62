"""docs/quality.png, from the rows of benchmarks.runs.evaluation: python -m benchmarks.pages.quality."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from .. import results
from . import rows
from .blocks.evaluation import LAW, Z, estimate
from .curves import GRID, INK, MIDDLE, SHADES, apart
from .rows import Row

PATH = Path("docs/quality.png")
# The networks of the four panels, and what each of their solvers is drawn in.
PANELS = {
    "digits": "digits: noise prediction on VP",
    "flow": "flow: straight paths",
    "cld": "cld: critically damped",
    "vdm": "vdm: a learned schedule",
}
COLORS = ("#1f6f8b", "#a23b52", "#94611b", "#5f7f3a", *SHADES)
WIDTH, ROW, TOP = 12.0, 4.6, 0.6  # inches of 100 dots
TEXT = 21


def curves(model: str) -> dict[str, list[Row]]:
    """The rows of each solver of a network, by calls."""
    found = rows.some(
        rows.committed(results.EVALUATION), model=model, guidance="1", grid="", seed="0"
    )
    return {
        solver: sorted(same, key=lambda row: int(row["calls"]))
        for (solver,), same in rows.grouped(found, "solver")
    }


def draw(pyplot: Any, path: Path) -> None:
    """A panel a network: Frechet distance over network calls, with 95 %, and the law's own distance."""
    made = {model: curves(model) for model in PANELS if _measured(model)}
    least = estimate(rows.one(rows.committed(results.EVALUATION), model=LAW)).value
    values = [
        estimate(row).value for same in made.values() for each in same.values() for row in each
    ]
    limits = 0.7 * least, 1.4 * max(values)
    lines = math.ceil(len(made) / 2)
    height = TOP + ROW * lines
    figure = pyplot.figure(figsize=(WIDTH, height))
    said = "Frechet distance from the training law; dotted: that of the law's own draws"
    figure.text(0.015, 1.0 - 0.4 / height, said, fontsize=TEXT, color=MIDDLE)
    for place, (model, solvers) in enumerate(made.items()):
        y = height - TOP - ROW * (1 + place // 2) + 0.75
        axes = figure.add_axes((0.075 + 0.5 * (place % 2), y / height, 0.27, (ROW - 1.4) / height))
        _panel(axes, PANELS[model], solvers, least, limits)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    with Image.open(path) as image:
        palette = image.convert("RGB").quantize(128)
    palette.save(path, optimize=True)


def _panel(
    axes: Any,
    title: str,
    solvers: Mapping[str, list[Row]],
    least: float,
    limits: tuple[float, float],
) -> None:
    axes.set_title(title, fontsize=TEXT, loc="left", color=INK, weight="bold", pad=12)
    ticks = sorted({int(row["calls"]) for same in solvers.values() for row in same})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(*limits)
    axes.set_xticks(ticks, [str(n) for n in ticks])
    across = [n for n in (3, 10, 30, 100, 300, 1000, 3000) if limits[0] < n < limits[1]]
    axes.set_yticks(across, [str(n) for n in across])
    axes.minorticks_off()
    axes.tick_params(labelsize=TEXT - 3, colors=MIDDLE, length=0)
    axes.grid(True, color=GRID, lw=1)
    axes.set_xlabel("network calls", fontsize=TEXT - 3, color=MIDDLE)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.axhline(least, ls=":", color=MIDDLE, lw=2.0)
    ends = []
    for color, (solver, same) in zip(COLORS, solvers.items(), strict=False):
        calls = [int(row["calls"]) for row in same]
        found = [estimate(row) for row in same]
        values = [each.value for each in found]
        low = [max(each.value - Z * each.spread, 0.5 * each.value) for each in found]
        axes.fill_between(
            calls, low, [e.value + Z * e.spread for e in found], color=color, alpha=0.15, lw=0
        )
        axes.plot(calls, values, ".-", color=color, lw=3.0, ms=12)
        ends.append((values[-1], calls[-1], solver, color))
    _names(axes, sorted(ends, reverse=True))


def _names(axes: Any, ends: list[tuple[float, int, str, str]]) -> None:
    """Of the curves at the right, from the highest end to the lowest."""
    low, high = (math.log(limit) for limit in axes.get_ylim())
    heights = [(math.log(value) - low) / (high - low) for value, *_ in ends]
    for (value, calls, name, color), place in zip(ends, apart(heights, 0.13), strict=True):
        arrow = {"arrowstyle": "-", "relpos": (0.0, 0.5), "color": color, "lw": 1.2, "alpha": 0.7}
        axes.annotate(
            name, (calls, value), (1.06, place), textcoords="axes fraction", va="center", fontsize=TEXT - 2,
            color=color, arrowprops=arrow,
        )  # fmt: skip


def _measured(model: str) -> bool:
    try:
        return bool(curves(model))
    except rows.Lacking:
        return False


def main() -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    draw(pyplot, PATH)


if __name__ == "__main__":
    main()
