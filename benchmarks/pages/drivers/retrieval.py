"""Digits of the shipped network beside the training images that are nearest to them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_engine import Sampler
from diffusion_engine.drivers.index import Index
from diffusion_engine.drivers.memorisation import Memorisation, memorisation
from diffusion_engine.training.data import mnist
from diffusion_engine.zoo import load_network

from ..chart import EDGE, _font

EACH = 20  # samples of a class
NEIGHBOURS = 3
HELD_OUT = 1000
CELL, GAP, LABEL = 84, 8, 190  # pixels; the labels stand left of the cells
INK = 40


def pixels(images: Tensor) -> Tensor:
    """An embedding of its own: images in [-1, 1], [n, 1024]."""
    return images.clamp(-1.0, 1.0).flatten(1)


def found() -> tuple[Tensor, Tensor, Memorisation]:
    """Samples, the images of the index, and what lies between."""
    images = 2.0 * mnist()[0] - 1.0
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    held_out, kept = images[order[:HELD_OUT]], images[order[HELD_OUT:]]
    classes = [digit for digit in range(10) for _ in range(EACH)]
    sampler = Sampler(load_network("digits"), "dpmpp_2m", steps=20, guidance=2.0)
    samples = sampler.sample(condition=classes, progress=False).samples
    index = Index(pixels(kept), metric="l2", normalise=False)
    return samples, kept, memorisation(samples, index, pixels, NEIGHBOURS, held_out)


def summary(report: Memorisation) -> list[str]:
    """The report in two lines."""
    made = report.to_dict()
    parts = {
        f"{made['samples']['n']} samples": made["samples"],
        f"{HELD_OUT} held-out digits": made["held_out"],
    }
    return [
        f"{name}: median d1 {part['distance']['median']:.1f}, median d1 / d2 {part['ratio']['median']:.2f}, "
        f"below 1/3 {part['below_ratio']:.0%}"
        for name, part in parts.items()
    ]


def draw(path: Path) -> None:
    """Writes the PNG: of every class the sample of the least d1 / d2, its neighbours below it."""
    samples, kept, report = found()
    ratios = report.samples.ratio.view(10, EACH)
    chosen = [EACH * digit + int(ratios[digit].argmin()) for digit in range(10)]
    lines = [samples[chosen], *(kept[report.samples.indices[chosen, j]] for j in range(NEIGHBOURS))]
    names = ["a sample", "its nearest", "the second", "the third"]
    height = 2 * EDGE + len(lines) * (CELL + GAP) + 120
    image = Image.new("L", (2 * EDGE + LABEL + 10 * (CELL + GAP), height), 255)
    pen = ImageDraw.Draw(image)
    for row, (name, images) in enumerate(zip(names, lines, strict=True)):
        y = EDGE + row * (CELL + GAP)
        pen.text((EDGE, y + CELL // 2), name, INK, _font(24), anchor="lm")
        for column, x in enumerate(images):
            gray = ((x[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
            cell = Image.fromarray(gray).resize((CELL, CELL), Image.Resampling.LANCZOS)
            image.paste(cell, (EDGE + LABEL + column * (CELL + GAP), y))
    y = EDGE + len(lines) * (CELL + GAP) + 14
    pen.text((EDGE, y), "d1 / d2", INK, _font(24), anchor="lm")
    for column, i in enumerate(chosen):
        at = (EDGE + LABEL + column * (CELL + GAP) + CELL // 2, y)
        pen.text(at, f"{float(report.samples.ratio[i]):.2f}", INK, _font(24), anchor="mm")
    for line, said in enumerate(summary(report)):
        pen.text((EDGE, y + 44 + 34 * line), said, INK, _font(24))
    image.quantize(16).save(path, optimize=True)
