"""Draws docs/emoji/, from the rows of benchmarks.runs.emoji and samples made again: python -m
benchmarks.pages.emoji."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from diffusion_engine.evaluation.features import levels
from diffusion_engine.evaluation.pictures import NEAR
from diffusion_engine.training.emoji import emoji
from diffusion_engine.zoo import load_network

from .. import results
from ..runs.emoji import MODEL, cases, prompts, sampled
from . import rows
from .blocks.emoji import Z
from .curves import GRID, INK, MIDDLE
from .rows import Row

FOLDER = Path("docs/emoji")
SIDE, GAP, TEXT = 96, 12, 13  # pixels: of a picture, between two, of a letter's height
FOUND, LOST = "#1f6f8b", "#a23b52"


def captions(found: Sequence[Row], samples: Tensor) -> Image.Image:
    """A grid of samples, each above its prompt."""
    cells = [_cell([s], row["prompt"], INK) for s, row in zip(samples, found, strict=True)]
    return _sheet(cells, 8)


def paraphrases(found: Sequence[Row], samples: Tensor) -> Image.Image:
    """Of each prompt its sample, the picture that it means and the nearest picture, above prompt and rank."""
    known = emoji()
    cells = []
    for sample, row in zip(samples, found, strict=True):
        pictures = [known.images[known.names.index(row[key])] for key in ("name", "nearest")]
        colour = FOUND if int(row["rank"]) <= NEAR else LOST
        cells.append(_cell([sample, *pictures], f"{row['rank']}: {row['prompt']}", colour))
    return _sheet(cells, 4)


def _cell(pictures: Sequence[Tensor], said: str, colour: str) -> Image.Image:
    width = len(pictures) * SIDE + (len(pictures) - 1) * 4
    cell = Image.new("RGB", (width, SIDE + 3 * TEXT + 12), "white")
    for i, picture in enumerate(pictures):
        image = Image.fromarray(picture.permute(1, 2, 0).numpy())
        cell.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (i * (SIDE + 4), 0))
    text = "\n".join(textwrap.wrap(said, round(2 * width / TEXT))[:3])
    font = ImageFont.load_default(TEXT)
    ImageDraw.Draw(cell).text((0, SIDE + 3), text, colour, font, spacing=1)
    return cell


def _sheet(cells: Sequence[Image.Image], columns: int) -> Image.Image:
    width, height = cells[0].width + GAP, cells[0].height + GAP
    lines = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width + GAP, lines * height + GAP), "white")
    for i, cell in enumerate(cells):
        sheet.paste(cell, (GAP + i % columns * width, GAP + i // columns * height))
    return sheet


def guidance(pyplot: Any, found: Sequence[Row], path: Path) -> None:
    """Fidelity over diversity, a point a scale, with 95 % over prompts."""
    figure, axes = pyplot.subplots(figsize=(7.5, 4.8), layout="constrained")
    x, y = [rows.some(found, quantity=name) for name in ("diversity", "found")]
    values = [[float(row["value"]) for row in each] for each in (x, y)]
    bars = [[Z * float(row["spread"]) for row in each] for each in (x, y)]
    axes.errorbar(
        *values, yerr=bars[1], xerr=bars[0], fmt=".-", color=FOUND, lw=2, ms=10, elinewidth=1
    )
    for row, *place in zip(x, *values, strict=True):
        axes.annotate(
            f"scale {float(row['guidance']):g}", place, textcoords="offset points", xytext=(8, 8),
            color=INK, fontsize=12,
        )  # fmt: skip
    axes.set_xlabel(
        "diversity: mean distance of two samples of a prompt", color=MIDDLE, fontsize=12
    )
    axes.set_ylabel(f"share found among the {NEAR} nearest", color=MIDDLE, fontsize=12)
    axes.grid(True, color=GRID, lw=1)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
    with Image.open(path) as image:
        made = image.convert("RGB")
    _save(made, path)


def _save(image: Image.Image, path: Path) -> None:
    image.quantize(256).save(path, optimize=True)


def main() -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    committed = rows.committed(results.EMOJI)
    network = load_network(MODEL)
    for part, draw in (("captions", captions), ("paraphrases", paraphrases)):
        [case] = cases(part)
        found = rows.some(committed, part=part, quantity="")
        if [row["prompt"] for row in found] != [*prompts(part)]:
            raise ValueError(f"the rows of {part} are of other prompts; measure them again")
        _save(draw(found, levels(sampled(network, case, 1))), FOLDER / f"{part}.png")
    guidance(pyplot, rows.some(committed, part="guidance"), FOLDER / "guidance.png")


if __name__ == "__main__":
    main()
