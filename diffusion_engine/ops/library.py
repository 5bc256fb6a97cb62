"""The ops as torch operators, `torch.ops.diffusion_engine.step` and so on.

torch.compile and torch.export see them as one node each. `register()` defines them; importing the
package does not.
"""

from __future__ import annotations

from functools import cache
from threading import Lock

import torch

from .registry import definition
from .table import IMPLEMENTATIONS

_registering = Lock()


def register() -> torch.library.Library:
    """Defines the operators once; keep nothing, the library lives as long as the process."""
    with _registering:
        return _defined()


@cache
def _defined() -> torch.library.Library:
    library = torch.library.Library("diffusion_engine", "DEF")
    for op in dict.fromkeys(op for op, _ in IMPLEMENTATIONS):
        for operator in definition(op).operators:
            name = library.define(operator.schema)
            library.impl(name, operator.run, "CompositeExplicitAutograd")
            torch.library.register_fake(f"diffusion_engine::{name}", operator.fake, lib=library)
    return library
