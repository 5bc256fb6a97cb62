"""What the networks that ship draw: a committed picture of each, which carries its recipe."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from PIL import Image


@dataclass(frozen=True)
class Picture:
    """A PNG as it stands in the package, with a tag of its content, and its width and height."""

    content: bytes
    tag: str
    size: tuple[int, int]


@cache
def _folder() -> dict[str, Traversable]:
    """By the network's name: what a client asks for is looked up in here, and never is a path."""
    folder = files("diffusion_engine.zoo").joinpath("gallery")
    found = folder.iterdir() if folder.is_dir() else ()
    return {file.name[:-4]: file for file in found if file.name.endswith(".png")}


def picture(network: str) -> Picture | None:
    """That of a network, None where it has none."""
    return _read(network) if network in _folder() else None


@cache
def _read(network: str) -> Picture:
    content = _folder()[network].read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        return Picture(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"', image.size)
