"""The same prompts and seeds of one network with two databases, of animals and of flags."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion_engine import Sampler
from diffusion_engine.cli.conditions import names_of
from diffusion_engine.drivers.database import Database, with_database
from diffusion_engine.sampler import defaults
from diffusion_engine.zoo import load_network

from ..chart import EDGE, _font

NAMES = Path(__file__).parents[3] / "examples"
DATABASES = ("animals", "flags")
PROMPTS = (
    "from africa", "from australia", "a desert", "pyramids", "the sea", "a kitten", "in the snow",
    "a carnival",
)  # fmt: skip
CELL, GAP, LABEL = 112, 10, 110  # pixels; the labels stand left of the cells
INK, PALE = 40, 110


def drawn(name: str) -> tuple[Tensor, list[str]]:
    """Pictures [n, 3, 64, 64] of the prompts, and the name nearest to each."""
    network = with_database(load_network("emoji_retrieval"), names_of(NAMES / f"{name}.txt"))
    assert isinstance(network.text, Database)
    sampler = Sampler(network, guidance=defaults.guidance(network, True))
    samples = sampler.sample(condition=list(PROMPTS), progress=False).samples
    return samples, [near[0].removeprefix("flag of ") for near in network.text.nearest(PROMPTS)]


def draw(path: Path) -> None:
    """Writes the PNG: a row a database, with the name that was nearest below each picture."""
    row = CELL + 2 * GAP + 26
    size = (2 * EDGE + LABEL + len(PROMPTS) * (CELL + GAP), 2 * EDGE + 40 + len(DATABASES) * row)
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    for line, name in enumerate(DATABASES):
        y = EDGE + 40 + line * row
        pen.text((EDGE, y + CELL // 2), name, (INK,) * 3, _font(22), anchor="lm")
        samples, nearest = drawn(name)
        pixels = ((samples.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        for column, prompt in enumerate(PROMPTS):
            x = EDGE + LABEL + column * (CELL + GAP)
            if line == 0:
                at = (x + CELL // 2, EDGE + 14)
                pen.text(at, prompt, (INK,) * 3, _font(17), anchor="mm")
            cell = Image.fromarray(pixels[column].permute(1, 2, 0).numpy())
            image.paste(cell.resize((CELL, CELL), Image.Resampling.LANCZOS), (x, y))
            under = (x + CELL // 2, y + CELL + 14)
            pen.text(under, nearest[column], (PALE,) * 3, _font(15), anchor="mm")
    image.quantize(128).save(path, optimize=True)
