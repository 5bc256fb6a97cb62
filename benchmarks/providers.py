"""The implementations of an op that take part: those of the op's table that a device may choose."""

from __future__ import annotations

from diffusion_engine.ops.registry import preference
from diffusion_engine.ops.table import IMPLEMENTATIONS

REFERENCE_LIMIT = 1 << 20  # elements above which the reference, which is no contender, is left out


def kernels(op: str, device: str) -> list[str]:
    """The backends on a kind of device in the table's order, without the reference."""
    chosen = preference(op, device)
    return [name for of, name in IMPLEMENTATIONS if of == op and name in chosen and name != "torch"]


def backends(op: str, device: str, elements: int) -> list[str]:
    """The backends on a kind of device for a state of so many elements, the reference first."""
    return ["torch"] * (elements <= REFERENCE_LIMIT) + kernels(op, device)
