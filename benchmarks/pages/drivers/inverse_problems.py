"""Digits beside what is measured of them, and what each method makes of that."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_engine import Sampler
from diffusion_engine.drivers import driver
from diffusion_engine.drivers.operators import operator
from diffusion_engine.training.data import mnist
from diffusion_engine.zoo import load_network

from ..chart import EDGE, _font

NOISE = 0.05
PROBLEMS = {
    "means of 4 x 4": {"name": "super_resolution", "factor": 4},
    "a hole of 14 x 16": {"name": "inpainting", "box": [9, 8, 14, 16]},
}
METHODS = {
    "DPS": ("dps", "ddpm", {"zeta": 1.0}),
    "PGDM": ("pgdm", "ddim", {"sigma_y": NOISE}),
    "MMPS": ("mmps", "ddim", {"sigma_y": NOISE}),
    "DiffPIR": ("diffpir", "ddpm", {"sigma_y": NOISE}),
    "FlowDPS": ("flowdps", "ddpm", {}),
    "DDRM": ("ddrm", "ddim", {"sigma_y": NOISE}),
    "DAPS": ("daps", "ddim", {"sigma_y": NOISE}),
}
DIGITS = (1, 3, 5, 7, 8)
STEPS = 100
CELL, GAP, LABEL, BETWEEN = 84, 8, 130, 24  # pixels; the labels stand left of the cells
INK = 40


def truths() -> Tensor:
    """A digit of each class, [5, 1, 32, 32] in [-1, 1]."""
    images, labels = mnist()
    chosen = [int((labels == digit).nonzero()[7]) for digit in DIGITS]
    return 2.0 * images[chosen] - 1.0


def made(about: dict, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The measurement of some images as pictures, and the samples by method."""
    a = operator(about)
    y = a.apply(x)
    y = y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    network, found = load_network("digits"), {}
    for name, (kind, solver, options) in METHODS.items():
        rule = driver(kind, operator=about, **options)
        sampler = Sampler(network, solver, STEPS, driver=rule, clip=(-1.0, 1.0))
        asked = {"condition": list(DIGITS), "measurement": y, "seed": 1, "progress": False}
        found[name] = sampler.sample(**asked).samples
    return a.apply(y) if y.shape == x.shape else y, found  # the hole as it is seen


def psnr(samples: Tensor, x: Tensor) -> float:
    """In decibels, of images in [-1, 1]."""
    return float(10.0 * torch.log10(4.0 / (samples - x).square().mean()))


def draw(path: Path) -> None:
    """Writes the PNG: below the digits what is measured, and a line a method with its PSNR."""
    x, lines = truths(), ["the digit", "measured", *METHODS]
    width = 2 * EDGE + LABEL + 2 * (len(DIGITS) * (CELL + GAP) + BETWEEN + 60)
    image = Image.new("L", (width, 2 * EDGE + 40 + len(lines) * (CELL + GAP)), 255)
    pen = ImageDraw.Draw(image)
    for row, name in enumerate(lines):
        at = EDGE, EDGE + 40 + row * (CELL + GAP) + CELL // 2
        pen.text(at, name, INK, _font(24), anchor="lm")
    for block, (title, about) in enumerate(PROBLEMS.items()):
        left = EDGE + LABEL + block * (len(DIGITS) * (CELL + GAP) + BETWEEN + 60)
        pen.text((left, EDGE), title, INK, _font(24))
        y, found = made(about, x)
        for row, images in enumerate([x, y, *found.values()]):
            top = EDGE + 40 + row * (CELL + GAP)
            for column, one in enumerate(images):
                gray = ((one[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
                cell = Image.fromarray(gray).resize((CELL, CELL), Image.Resampling.NEAREST)
                image.paste(cell, (left + column * (CELL + GAP), top))
            if row > 1:
                at = left + len(DIGITS) * (CELL + GAP), top + CELL // 2
                pen.text(at, f"{psnr(images, x):.1f} dB", INK, _font(18), anchor="lm")
    image.quantize(16).save(path, optimize=True)
