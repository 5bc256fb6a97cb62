"""Forward derivatives, one at a time: torch keeps their level, and `sdpa_kernel` its choice, once for the
process."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from threading import RLock
from typing import Any

import torch

_lock = RLock()


def turn() -> AbstractContextManager[Any]:
    """To be held meanwhile. A traced call needs none: its derivative is worked out when it is traced."""
    return nullcontext() if torch.compiler.is_compiling() else _lock
