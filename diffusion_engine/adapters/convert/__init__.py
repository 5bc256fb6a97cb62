"""Checkpoints of other forms, pickles among them, into folders that nothing has to be run to read."""

from .parent import convert

__all__ = ["convert"]
