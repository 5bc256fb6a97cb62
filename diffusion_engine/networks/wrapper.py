"""What stands around a user's module and is called in its place."""

from __future__ import annotations

from typing import Any

from torch import nn


class Wrapper(nn.Module):
    """Calls `module` in another way, for the same outputs; it has no weights but those of `module`."""

    module: Any

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module


def unwrapped(module: Any, kind: type[Wrapper] = Wrapper) -> Any:
    """The module within wrappers of a kind, the user's own within all of them."""
    while isinstance(module, kind):
        module = module.module
    return module
