"""What is known of a network without the values of its weights, on which no time depends."""

from __future__ import annotations

from typing import Any

from torch import nn


def structure(module: Any) -> list[Any]:
    """Of a module its layers with what they print of themselves, whose forwards were replaced by what, and
    its tensors; of another callable its name."""
    if not isinstance(module, nn.Module):
        return [_kind(module)]
    parts = list(module.named_modules())
    own = [(name, vars(part)["forward"]) for name, part in parts if "forward" in vars(part)]
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [
        _kind(module),
        repr(module),
        [[name, _kind(getattr(forward, "__self__", forward))] for name, forward in own],
        [[name, list(t.shape), str(t.dtype), t.device.type] for name, t in tensors],
    ]


def _kind(given: Any) -> str:
    kind = given if hasattr(given, "__qualname__") else type(given)
    return f"{kind.__module__}.{kind.__qualname__}"
