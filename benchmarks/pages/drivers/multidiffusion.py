"""Digits on a wide canvas, by windows that do not overlap and by some that do more and more."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw

from diffusion_engine import Sampler
from diffusion_engine.drivers.multidiffusion import MultiDiffusion
from diffusion_engine.zoo import load_network

from ..chart import EDGE, _font

CANVAS, DIGIT, SEED = (32, 224), 3, 4
STRIDES = (32, 24, 20, 16)
SCALE, GAP, LABEL, INK = 3, 12, 170, 40  # pixels; the labels stand left of the canvases


def draw(path: Path) -> None:
    network = load_network("digits")
    tall, wide = (SCALE * n for n in CANVAS)
    size = 2 * EDGE + LABEL + wide, 2 * EDGE + len(STRIDES) * (tall + GAP) - GAP
    image = Image.new("L", size, 255)
    pen = ImageDraw.Draw(image)
    for row, stride in enumerate(STRIDES):
        canvas = MultiDiffusion(CANVAS, (32, stride))
        sampler = Sampler(network, "dpmpp_2m", steps=20, guidance=2.0, driver=canvas)
        x = sampler.sample(1, seed=SEED, condition=DIGIT, progress=False).samples[0, 0]
        gray = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        y = EDGE + row * (tall + GAP)
        pen.text((EDGE, y + tall // 2), f"stride {stride}", INK, _font(26), anchor="lm")
        canvas_image = Image.fromarray(gray).resize((wide, tall), Image.Resampling.LANCZOS)
        image.paste(canvas_image, (EDGE + LABEL, y))
    image.quantize(16).save(path, optimize=True)
