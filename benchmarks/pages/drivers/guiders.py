"""Digits of the shipped network at a high scale, plain and by each guider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_engine import Sampler
from diffusion_engine.zoo import load_network

from ..chart import EDGE, _font

SCALE, STEPS = 8.0, 20
# label, scale, guider
ROWS: tuple[tuple[str, float, Any], ...] = (
    ("no guidance", 1.0, None),
    (f"guidance {SCALE:g}", SCALE, None),
    ("rescale", SCALE, {"name": "rescale", "options": {"phi": 1.0}}),
    ("cfg_zero", SCALE, "cfg_zero"),
    ("tcfg", SCALE, "tcfg"),
    ("apg", SCALE, {"name": "apg", "options": {"limit": 2.0}}),
    ("threshold", SCALE, "threshold"),
)
CELL, GAP, LABEL, INK = 56, 6, 170, 40  # pixels; the labels stand left of the cells


def digits(scale: float, guider: Any) -> Tensor:
    """One of each, of seeds 0 to 9; their estimates are not clipped."""
    options = {"guidance": scale, "guider": guider, "clip": None}
    sampler = Sampler(load_network("digits"), "dpmpp_2m", STEPS, **options)
    return sampler.sample(10, seed=0, condition=list(range(10)), progress=False).samples


def picture(x: Tensor) -> Image.Image:
    """[1, 32, 32] in [-1, 1] as a cell."""
    grey = ((x[0].clamp(-1.0, 1.0) + 1.0) * 127.5).round().byte().numpy()
    return Image.fromarray(255 - grey).resize((CELL, CELL), Image.Resampling.BICUBIC)


def draw(path: Path) -> None:
    """Writes the PNG."""
    size = (2 * EDGE + LABEL + 10 * (CELL + GAP), 2 * EDGE + len(ROWS) * (CELL + GAP))
    image = Image.new("L", size, 255)
    pen = ImageDraw.Draw(image)
    for i, (label, *how) in enumerate(ROWS):
        y = EDGE + i * (CELL + GAP)
        pen.text((EDGE, y + CELL // 2), label, INK, _font(20), anchor="lm")
        for j, x in enumerate(digits(*how)):
            image.paste(picture(x), (EDGE + LABEL + j * (CELL + GAP), y))
    image.quantize(16).save(path, optimize=True)
