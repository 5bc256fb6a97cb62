"""The buffers of one run: everything that changes while samples are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..arena import Arena
from ..network import Condition, ScoreNetwork
from ..ops.step import StepArgs
from ..plan import Plan
from .packing import Packing

# (row index, m) -> normals [B, *shape], in place of the engine's own
NoiseSource = Callable[[int, int], Tensor]


@dataclass(eq=False)
class Run:
    """State of a batch of samples under their plans.

    plans       the distinct plans
    plan_of     the plan of each sample
    conditions  of each branch: [B, ...] tensors, or a mapping of them; None without conditions
    x           given first states, [B, *shape]; None draws them
    noise       normals to use in place of the engine's own
    mask, known [B, *shape]: inpainting
    """

    network: ScoreNetwork
    plans: Sequence[Plan]
    plan_of: Sequence[int]
    seeds: Tensor
    device: torch.device
    dtype: torch.dtype = torch.float32
    state_dtype: torch.dtype = torch.float32
    conditions: Sequence[Condition | None] = (None,)
    x: Tensor | None = None
    noise: NoiseSource | None = None
    mask: Tensor | None = None
    known: Tensor | None = None
    want_denoised: bool = False
    args: StepArgs = field(init=False)
    evaluations: int = field(init=False, default=0)
    _packings: dict[tuple, Packing] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        batch, plans = len(self.plan_of), self.plans
        arena = Arena.of(plans, self.state_dtype, self.device)
        entries = max(len(row.entries) for plan in plans for row in plan.rows)
        normals = max(plan.normals for plan in plans)
        inputs = max(plan.inputs for plan in plans)
        channels, *pixel = self.network.shape

        def ints(values: object) -> Tensor:
            return torch.as_tensor(np.asarray(values, np.int32), device=self.device)

        def state(*lead: int, dtype: torch.dtype | None = None, width: int = 1) -> Tensor:
            return self._dense((*lead, channels * width, *pixel), dtype or self.state_dtype)

        slots = state(max(plan.slots for plan in plans), batch)
        if self.x is not None:
            slots[0].copy_(self.x)
        draws = 3 if self.mask is not None else normals
        self.args = StepArgs(
            slots=slots,
            row=ints([arena.first[p] for p in self.plan_of]),
            seed=self.seeds.to(self.device),
            table=arena.table,
            src=ints(np.full((batch, max(plan.outputs for plan in plans)), -1)),
            dst=ints(np.full((batch, entries), -1)),
            net_in=state(batch * entries, dtype=self.dtype, width=inputs),
            label=torch.zeros(batch * entries, dtype=self.network.label_dtype, device=self.device),
            noise=state(draws, batch, dtype=torch.float32) if self.noise and draws else None,
            mask=self.mask,
            known=self.known,
            denoised=state(batch) if self.want_denoised else None,
            status=ints(np.zeros(batch)),
            ticket=ints(np.zeros(batch)),
            normals=normals,
            inputs=inputs,
            learned=any(row.learned for plan in plans for row in plan.rows),
        )

    def _dense(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros in the network's memory format."""
        if self.network.memory_format is not torch.channels_last:
            return torch.zeros(shape, dtype=dtype, device=self.device)
        *lead, channels, height, width = shape
        made = torch.zeros((*lead, height, width, channels), dtype=dtype, device=self.device)
        return made.movedim(-1, -3)

    @property
    def length(self) -> int:
        """Rows of the longest plan."""
        return max(len(plan.rows) for plan in self.plans)

    def packing(self, i: int) -> Packing:
        """The packing of the calls that rows i make; the same object as long as nothing changes."""
        needs = tuple(plan.rows[i].branches if i < len(plan.rows) else () for plan in self.plans)
        if needs not in self._packings:
            self._packings[needs] = Packing(tuple(needs[p] for p in self.plan_of))
        return self._packings[needs]

    def condition_of(self, packing: Packing) -> Condition | None:
        """The condition of every entry, in order."""
        if all(c is None for c in self.conditions):
            return None
        where = torch.tensor([list(e) for e in packing.entries], device=self.device)
        branches, samples = where[:, 0], where[:, 1]

        def pick(tensors: list[Tensor]) -> Tensor:
            return torch.stack(tensors)[branches, samples]

        first = self.conditions[0]
        if isinstance(first, Tensor):
            return pick(list(self.conditions))  # type: ignore[arg-type]
        assert first is not None
        return {name: pick([c[name] for c in self.conditions]) for name in first}  # type: ignore[index]

    def fill_noise(self, i: int) -> None:
        """Puts the given normals of rows i into the noise buffer."""
        if self.noise is None or self.args.noise is None:
            return
        rows = [plan.rows[i] for plan in self.plans if i < len(plan.rows)]
        for m in range(self.args.noise.shape[0]):
            used = any(row.draws(m) if m < 2 else row.known and row.known[1] for row in rows)
            if used:
                self.args.noise[m].copy_(self.noise(i, m))
