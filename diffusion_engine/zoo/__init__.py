"""Trained networks that ship with the package, and files of a user's own in the same form."""

from .networks import load_network
from .unet import UNet
from .weights import build, config, load, names, save

__all__ = ["UNet", "build", "config", "load", "load_network", "names", "save"]
