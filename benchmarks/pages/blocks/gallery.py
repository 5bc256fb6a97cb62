"""What docs/gallery.md shows of each network that ships: its picture, and the command that draws it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion_engine.cli.models import run
from diffusion_engine.zoo import cards

from ..rows import Lacking

ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "docs" / "gallery"
PROMPTS = Path(__file__).parents[1] / "gallery_prompts.txt"  # one a line
NAMES = "docs/gallery/names.txt"  # neighbours of them
SEEDS = 50  # five of each of ten classes
LONGEST = 100  # characters of a line of a command


def gallery() -> str:
    """A section a network, in the order of their names."""
    return "\n\n".join(_section(cards.described(name)) for name in cards.names())


def command(about: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The command line that draws a network's picture, each option with its value."""
    prompts = PROMPTS.read_text().splitlines() if about["context"] else []
    return [
        ("diffusion-engine", "sample"),
        ("--model", about["name"]),
        *([("--database", NAMES)] if _reads_neighbours(about) else []),
        ("--seeds", f"0-{(len(prompts) or SEEDS) - 1}"),
        *(("--prompt", prompt) for prompt in prompts),
    ]


def folded(parts: list[tuple[str, ...]]) -> str:
    """A command line as the shell reads it, over several lines where it is long."""
    lines = [""]
    for part in map(shlex.join, parts):
        if lines[-1] and len(lines[-1]) + len(part) >= LONGEST:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(lines)


def _reads_neighbours(about: Mapping[str, Any]) -> bool:
    return about["context"] is not None and about["text"] is None


def _section(about: Mapping[str, Any]) -> str:
    name = about["name"]
    parts = [f"## {name}", about["about"]]
    if about["sampler"] is None:
        return "\n\n".join([*parts, "A part of others: it draws nothing by itself."])
    path = PICTURES / f"{name}.png"
    if not path.is_file():
        raise Lacking(
            f"there is no {path}: draw it by python -m benchmarks.pages.gallery --only {name}"
        )
    with Image.open(path) as image:
        width = 2 * image.width
    calls = f"{about['calls']} call{'s' * (about['calls'] > 1)}"
    parts.append(
        f'<img src="gallery/{path.name}" width="{width}" alt="What the network {name} draws">'
    )
    parts.append(f"By {run(about['sampler'])}: {calls} of the network.")
    parts.append(f"```bash\n{folded([*command(about), ('--out', path.name)])}\n```")
    if _reads_neighbours(about):
        parts.append(f"Beside its picture's recipe, too, stands `--database {NAMES}`.")
    return "\n\n".join(parts)
