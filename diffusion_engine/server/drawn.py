"""What the networks that ship draw: a committed picture of each, which carries its recipe."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable


@cache
def _folder() -> dict[str, Traversable]:
    """By the network's name: what a client asks for is looked up in here, and never is a path."""
    folder = files("diffusion_engine.zoo").joinpath("gallery")
    found = folder.iterdir() if folder.is_dir() else ()
    return {file.name[:-4]: file for file in found if file.name.endswith(".png")}


def there(network: str) -> bool:
    """Whether a network has a picture."""
    return network in _folder()


@cache
def picture(network: str) -> tuple[bytes, str]:
    """The picture of a network that has one, and a tag of its content."""
    content = _folder()[network].read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
