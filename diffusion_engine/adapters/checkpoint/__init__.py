"""Checkpoints as files: read with limits, never run; their numbers put into modules."""

from .fields import Fields
from .fill import fill, on_meta
from .folder import Checkpoint, read
from .formats import open_checkpoint

__all__ = ["Checkpoint", "Fields", "fill", "on_meta", "open_checkpoint", "read"]
