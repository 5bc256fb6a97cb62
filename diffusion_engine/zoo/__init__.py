"""Trained networks that ship with the package, and files of a user's own in the same form.

Names are loaded when they are first used: a card is read without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .cards import Card, card, config, names
    from .networks import load_network, network_of_card
    from .unet import UNet
    from .weights import build, load, save

__all__ = [
    "Card",
    "UNet",
    "build",
    "card",
    "config",
    "load",
    "load_network",
    "names",
    "network_of_card",
    "save",
]

_MODULES = {
    "Card": "cards", "card": "cards", "config": "cards", "names": "cards", "load_network": "networks",
    "network_of_card": "networks", "UNet": "unet", "build": "weights", "load": "weights", "save": "weights",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    made = globals()[name] = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    return made
