"""Draws docs/gallery/, a picture of every network that ships, and writes their page: python -m
benchmarks.pages.gallery.

Each is what the command on the page makes, by the solver, steps and guidance of the network's card, and so it
carries its recipe. A file is written where its pixels or its recipe change, and not otherwise.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion_engine.cli import files
from diffusion_engine.sampler.spec import Recipe
from diffusion_engine.zoo import cards

from . import measured
from .blocks.gallery import PICTURES, command

PAGE = PICTURES.with_suffix(".md")
SECONDS = 3e-9  # for a sample, a call and a parameter: between 1.5 and 5 on a core of an AMD EPYC
START = 3.5  # until a process has imported torch


def main(words: Sequence[str] | None = None) -> None:
    drawn = [name for name in cards.names() if cards.card(name).samples]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", choices=drawn, help="draw this one"
    )
    only = parser.parse_args(words).only
    names = only or drawn
    seconds = sum(estimate(cards.described(name)) for name in names)
    print(f"pictures of {', '.join(names)}: some {seconds:.0f} seconds on one core", flush=True)
    for name in names:
        began = time.perf_counter()
        what = "written" if draw(cards.described(name)) else "as it was"
        print(f"{name}: {what}, {time.perf_counter() - began:.1f} s", flush=True)
    for name in [] if only else sorted(set(cards.names()) - set(drawn)):
        print(f"{name}: a part of others, no picture")
    PAGE.write_text(measured.written(PAGE.read_text(), PAGE.name))


def estimate(about: Mapping[str, Any]) -> float:
    """Seconds that a picture takes."""
    size = about["parameters"]
    if about["base"] is not None:
        size += cards.parameters(about["base"]["name"])
    branches = 1 if about["sampler"].get("guidance", 1.0) == 1.0 else 2
    first, _, last = dict(command(about))["--seeds"].partition("-")
    samples = int(last) - int(first) + 1
    return START + SECONDS * size * samples * branches * about["calls"]


def draw(about: Mapping[str, Any]) -> bool:
    """Makes a network's picture; whether that is another than there was."""
    path = PICTURES / f"{about['name']}.png"
    words = [word for part in command(about) for word in part][1:]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, path.name)
        called = [sys.executable, "-m", "diffusion_engine.cli", *words, "--out", str(made)]
        subprocess.run(called, check=True, stdout=subprocess.DEVNULL)
        if path.is_file() and shown(made) == shown(path):
            return False
        shutil.copyfile(made, path)
    return True


def shown(path: Path) -> tuple[bytes, Recipe]:
    """The pixels of a picture and its recipe, which is the same where a key has come to the form since."""
    with Image.open(path) as image:
        return image.tobytes(), Recipe.model_validate(files.read_recipe(path))


if __name__ == "__main__":
    main()
