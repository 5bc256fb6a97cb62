"""What is chosen by measurement: which is the fastest, and where that is kept."""

from __future__ import annotations

from .kept import Kept, files, folder, share, shared
from .structure import structure
from .turns import fewest, in_turns

__all__ = ["Kept", "fewest", "files", "folder", "in_turns", "share", "shared", "structure"]
