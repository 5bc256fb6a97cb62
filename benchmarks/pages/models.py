"""Makes docs/models/, a picture of every network that ships: python -m benchmarks.pages.models.

Each is made by the network's own sampler and carries its recipe, as of `diffusion-engine sample`. The number
of calls of such a run goes into the network's card.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence

from diffusion_engine import Sampler, zoo
from diffusion_engine.zoo import cards

from .blocks.models import PICTURES

SEEDS = "0-49"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="networks; all that ship")
    PICTURES.mkdir(exist_ok=True)
    for name in parser.parse_args(words).names or zoo.names():
        if zoo.card(name).samples:
            count(name)
            picture(name)


def count(name: str) -> None:
    """Writes the calls of a run into the card."""
    calls = Sampler(zoo.load_network(name)).plan().nfe
    about = {key: value for key, value in zoo.config(name).items() if key != "calls"}
    made = {}
    for key, value in about.items():
        made[key] = value
        if key == "sampler":
            made["calls"] = calls
    path = cards.weights(name).with_suffix(".json")
    path.write_text(json.dumps(made, indent=2) + "\n")


def picture(name: str) -> None:
    """Five digits of each class."""
    command = [
        sys.executable,
        "-m",
        "diffusion_engine.cli",
        "sample",
        "--model",
        name,
        "--seeds",
        SEEDS,
    ]
    subprocess.run([*command, "--out", str(PICTURES / f"{name}.png")], check=True)


if __name__ == "__main__":
    main()
