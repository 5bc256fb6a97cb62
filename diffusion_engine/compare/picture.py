"""A comparison as one labelled picture: a row a solver, a column a count. Pillow alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .runs import Cell, Comparison

SIDE = 56  # pixels of a small image's longer side at least, by a whole factor
GAP, PAD = 2, 14  # between images, and between cells
SIZE, LINE = 15, 19  # of letters, and of a line of them
INK, FAINT, BEST, PAPER = "#1a1a1a", "#6b6b6b", "#0a7d3c", "white"
LARGEST = 20000  # pixels of a side


@dataclass(frozen=True)
class Sheet:
    """How a comparison of images [C, H, W] is laid out.

    count  images of a cell
    """

    shape: tuple[int, ...]
    count: int

    @property
    def factor(self) -> int:
        return max(1, math.ceil(SIDE / max(self.shape[1:])))

    @property
    def columns(self) -> int:
        return math.ceil(math.sqrt(self.count))

    @property
    def block(self) -> tuple[int, int]:
        """Width and height of the images of a cell."""
        rows, (height, width) = math.ceil(self.count / self.columns), self.shape[1:]
        return (
            self.columns * (width * self.factor + GAP) - GAP,
            rows * (height * self.factor + GAP) - GAP,
        )

    def check(self, rows: int, columns: int) -> None:
        """Raises ValueError where a picture of so many cells would be too large."""
        width, height = self.block
        if max((columns + 1) * (width + PAD), (rows + 1) * (height + 3 * LINE)) > LARGEST:
            raise ValueError(
                f"{rows} x {columns} cells of {self.count} images {list(self.shape)} are a picture of more "
                f"than {LARGEST} pixels; ask for fewer samples, solvers or counts"
            )

    def images(self, samples: Tensor) -> Image.Image:
        """The samples of a cell side by side, [-1, 1] from black to white."""
        channels, height, width = self.shape
        pixels = samples.float().numpy().transpose(0, 2, 3, 1)
        pixels = np.clip(np.rint(pixels * 127.5 + 127.5), 0, 255).astype(np.uint8)
        sheet = Image.new("RGB", self.block, PAPER)
        for i, each in enumerate(pixels):
            image = Image.fromarray(each[:, :, 0] if channels == 1 else each).convert("RGB")
            size = width * self.factor, height * self.factor
            down, right = divmod(i, self.columns)
            spot = right * (size[0] + GAP), down * (size[1] + GAP)
            sheet.paste(image.resize(size, Image.Resampling.NEAREST), spot)
        return sheet


def picture(made: Comparison, title: str) -> Image.Image:
    """The picture; the nearest to the fine solution in each column is green.

    title  what is common to all runs
    """
    sheet = Sheet(tuple(made.solution.shape[1:]), len(made.seeds))
    font, draw = ImageFont.load_default(SIZE), ImageDraw.Draw(Image.new("RGB", (1, 1)))
    told = [[_told(cell, made.by) for cell in row] for row in made.cells]
    heads = [f"{count} {made.by}" for count in made.counts]
    legend = [title, *_legend(made)]

    def width_of(texts: list[str]) -> int:
        return max((math.ceil(draw.textlength(text, font)) for text in texts), default=0)

    block, high = sheet.block
    cell = max(block, width_of([line for row in told for lines in row for line in lines] + heads))
    solution = ["fine solution", str(made.fine)]
    names = [_broken(name) for name in made.names]
    left = width_of([line for name in (*names, solution) for line in name]) + 2 * PAD
    deep = max([2, *(len(lines) for row in told for lines in row)])
    tall = max(high + deep * LINE, max(map(len, names)) * LINE) + PAD
    width = max(left + len(made.counts) * (cell + PAD), width_of(legend) + 2 * PAD)
    top = high + PAD + PAD
    height = top + LINE + PAD // 2 + len(names) * tall + len(legend) * LINE + PAD
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)

    def text(x: int, y: int, lines: list[str], color: str) -> None:
        for i, line in enumerate(lines):
            draw.text((x, y + i * LINE), line, color, font)

    text(PAD, PAD, solution, INK)
    image.paste(sheet.images(made.solution), (left, PAD))
    for j, head in enumerate(heads):
        text(left + j * (cell + PAD), top, [head], INK)
    best = [_best(made, j) for j in range(len(heads))]
    for i, name in enumerate(names):
        y = top + LINE + PAD // 2 + i * tall
        text(PAD, y, name, INK)
        for j, found in enumerate(made.cells[i]):
            x = left + j * (cell + PAD)
            if found is not None:
                image.paste(sheet.images(found.samples), (x, y))
            text(x, y + high + 2, told[i][j], BEST if best[j] == i else FAINT)
    text(PAD, height - PAD - len(legend) * LINE, legend, FAINT)
    return image


def _told(cell: Cell | None, by: str) -> list[str]:
    """What stands below the images of a cell."""
    if cell is None:
        return ["no run of so few"]
    other = f"{cell.calls} calls" if by == "steps" else f"{cell.steps} steps"
    away = cell.why if cell.distance is None else f"rms {cell.distance:.2g}"
    return [f"{other}, {cell.seconds:.2g} s", away]


def _legend(made: Comparison) -> list[str]:
    lines = [
        f"rms: of the difference from the fine solution, over {len(made.seeds)} samples; the nearest of a "
        "column in green"
    ]
    whys = {cell.why for row in made.cells for cell in row if cell is not None and cell.why}
    if whys:
        lines.append(
            f"{', '.join(sorted(whys))}: such samples follow no solution of the ODE, and have no distance "
            "from it"
        )
    return lines


def _best(made: Comparison, j: int) -> int | None:
    found = {
        i: row[j].distance  # type: ignore[union-attr]
        for i, row in enumerate(made.cells)
        if row[j] is not None and row[j].distance is not None  # type: ignore[union-attr]
    }
    return min(found, key=found.__getitem__) if len(found) > 1 else None  # type: ignore[arg-type]


def _broken(name: str) -> list[str]:
    """A solver's name, and its options below it, one a line."""
    first, *options = name.split(":")
    return [first, *(f"  {option}" for option in options)]
