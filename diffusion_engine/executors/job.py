"""`Job`: one sample, as a batch takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..plan import Plan

# One sample's condition: a tensor without a batch axis, or tensors by name.
Given = Tensor | Mapping[str, Tensor] | None
# (row of the plan, m) -> the normals [C, *pixel] in place of the engine's own; m = 2 is the known region's
NoiseSource = Callable[[int, int], Tensor]
# (row of the plan, x [C, *pixel], denoised [C, *pixel] or None): views, after the row's step was launched
OnRow = Callable[[int, Tensor, Tensor | None], None]
# (row of the plan, slots [K, C, *pixel]): a view, after the row's step was launched
OnSlots = Callable[[int, Tensor], None]


@dataclass(frozen=True, eq=False, slots=True)
class Job:
    """One sample: its plan, its seed, and what is given for it. Immutable; a batch copies what it holds.

    plan         the table of its run
    seed         0 ... 2^64 - 1
    conditions   of every branch of the plan: a tensor [...], or a mapping of tensors; () without any
    x            the first state [C, *pixel], or all of [x, v] on the channel axis; None draws it
    noise        normals in place of the engine's own
    brownian     whether its noise is that of its Brownian path
    mask, known  [C, *pixel] of inpainting: 1 where it is free, 0 where it is `known`
    on_row       called after each of its rows
    on_slots     called after each of its rows with all its slots
    """

    plan: Plan
    seed: int
    conditions: tuple[Given, ...] = ()
    x: Tensor | None = None
    noise: NoiseSource | None = None
    brownian: bool = False
    mask: Tensor | None = None
    known: Tensor | None = None
    on_row: OnRow | None = None
    on_slots: OnSlots | None = None


def named(condition: Given) -> list[tuple[str, Tensor]]:
    """The tensors of a condition with their names, sorted; that of a plain tensor is ""."""
    if condition is None:
        return []
    if isinstance(condition, Tensor):
        return [("", condition)]
    return sorted(condition.items())
