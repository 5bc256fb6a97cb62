"""Draws docs/editing/ by the commands of its page, and writes these: python -m benchmarks.pages.editing.

Each picture carries the recipe that its command wrote. A file is written where its pixels or its recipe
change, and not otherwise.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from . import measured
from .blocks.editing import MASK, PICTURES, SECTIONS, SIDE, Step
from .gallery import shown

PAGE = PICTURES.with_suffix(".md")
GIVEN = ("cat.png", "mask.png")  # what commands read that others have not made


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="SECTION", choices=[*SECTIONS])
    names = parser.parse_args(words).only or [*SECTIONS]
    mask().save(PICTURES / "mask.png")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for step in SECTIONS[name]:
                began = time.perf_counter()
                what = "written" if draw(step, Path(folder)) else "as it was"
                print(f"{step.out}: {what}, {time.perf_counter() - began:.1f} s", flush=True)
    PAGE.write_text(measured.written(PAGE.read_text(), PAGE.name))


def mask() -> Image.Image:
    """White where inpainting is free."""
    made = Image.new("L", (SIDE, SIDE), "black")
    made.paste("white", MASK)
    return made


def draw(step: Step, folder: Path) -> bool:
    """Runs a command in a folder; whether its picture is another than there was."""
    for name in GIVEN:
        if (PICTURES / name).is_file():
            shutil.copyfile(PICTURES / name, folder / name)
    words = [word for part in step.command for word in part][1:]
    called = [sys.executable, "-m", "diffusion_engine.cli", *words]
    subprocess.run(called, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    made, path = folder / step.out, PICTURES / step.out
    if not step.shows or (path.is_file() and shown(made) == shown(path)):
        return False
    shutil.copyfile(made, path)
    return True


if __name__ == "__main__":
    main()
