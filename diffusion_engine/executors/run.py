"""What a batch of samples asks of an executor: plans, seeds and conditions, host only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from ..networks.network import HALF, Condition, ScoreNetwork
from ..ops import layout
from ..plan import Plan
from .packing import Packing, bucket

# (row index, m) -> normals [B, *shape], in place of the engine's own
NoiseSource = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Signature:
    """Everything that decides buffers and kernels: two runs of one signature differ in data alone.

    samples, rows      how many there is room for
    slots, outputs, entries, inputs, normals, learned   as in StepArgs; entries of one sample
    draws              normals that are given instead of drawn
    brownian           whether the op `brownian` fills those
    masked, denoised   whether a known region is kept, whether `denoised` is written
    condition          (name, shape, dtype) of its tensors, one sample each; a tensor's name is ""
    latent             size of the network's z, 0 where it takes none
    """

    samples: int
    rows: int
    slots: int
    outputs: int
    entries: int
    inputs: int
    normals: int
    draws: int
    brownian: bool
    learned: bool
    masked: bool
    denoised: bool
    shape: tuple[int, ...]
    memory_format: torch.memory_format
    dtype: torch.dtype
    state_dtype: torch.dtype
    label_dtype: torch.dtype
    device: torch.device
    condition: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]
    latent: int

    ROWS = 256  # room for rows comes in powers of two from here on

    def padded(self) -> Signature:
        """The signature of a bucket: with room for more samples and rows, so that runs share it."""
        rows = max(self.ROWS, 1 << (self.rows - 1).bit_length())
        return replace(self, samples=bucket(self.samples), rows=rows)


@dataclass(frozen=True, eq=False)
class Run:
    """A batch of samples under their plans.

    plans       the distinct plans
    plan_of     the plan of each sample
    seeds       [B] int64
    conditions  of each branch: [B, ...] tensors, or a mapping of them; None without conditions
    x           given first states, [B, *shape] or all of [x, v]; None draws them
    noise       normals to use in place of the engine's own
    brownian    whether the samples' noise is that of their Brownian paths
    mask, known [B, *shape]: inpainting
    parts       how many slots the samples are, on the channel axis: 2 for [x, v]
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
    brownian: bool = False
    mask: Tensor | None = None
    known: Tensor | None = None
    want_denoised: bool = False
    parts: int = 1

    @property
    def samples(self) -> int:
        return len(self.plan_of)

    @property
    def length(self) -> int:
        """Rows of the longest plan."""
        return max(len(plan.rows) for plan in self.plans)

    @cached_property
    def calls(self) -> tuple[Packing | None, ...]:
        """The packing of the calls that rows i make, None for rows 0, and an empty one after the last.

        Equal packings are one object.
        """
        return _calls(tuple(plan.branches for plan in self.plans), tuple(self.plan_of))

    @cached_property
    def packings(self) -> tuple[Packing, ...]:
        """The distinct packings of the run's calls."""
        return tuple(p for p in dict.fromkeys(self.calls) if p is not None)

    @property
    def evaluations(self) -> int:
        """Network evaluations of all samples together."""
        return sum(self.plans[p].evaluations for p in self.plan_of)

    @property
    def draws(self) -> int:
        """How many normals of a row may be given: index 2 is the known region's."""
        return layout.NORMALS + 1 if self.mask is not None else max(p.normals for p in self.plans)

    @cached_property
    def signature(self) -> Signature:
        plans, network = self.plans, self.network
        return Signature(
            samples=self.samples,
            rows=sum(len(plan.rows) for plan in plans),
            slots=max(plan.slots for plan in plans),
            outputs=max(plan.outputs for plan in plans),
            entries=max(plan.entries for plan in plans),
            inputs=max(plan.inputs for plan in plans),
            normals=max(plan.normals for plan in plans),
            draws=self.draws if self.noise is not None or self.brownian else 0,
            brownian=self.brownian and self.draws > 0,
            learned=any(plan.learned for plan in plans),
            masked=self.mask is not None,
            denoised=self.want_denoised,
            shape=network.shape,
            memory_format=network.memory_format,
            dtype=self.dtype,
            state_dtype=self.state_dtype,
            label_dtype=torch.float32 if network.label_dtype in HALF else network.label_dtype,
            device=self.device,
            condition=tuple((n, tuple(t.shape[1:]), t.dtype) for n, t in named(self.conditions[0])),
            latent=network.parameterisation.latent,
        )

    def condition_of(self, packing: Packing) -> list[Tensor]:
        """The tensors of the condition, [entries, ...], in the order of the signature."""
        branches = [[t for _, t in named(condition)] for condition in self.conditions]
        if not branches[0]:
            return []
        where = torch.tensor(packing.entries or [(0, 0)], device=self.device)[: packing.count]
        return [torch.stack(tensors)[where[:, 0], where[:, 1]] for tensors in zip(*branches)]  # noqa: B905


@lru_cache(64)
def _calls(
    branches: tuple[tuple[tuple[int, ...], ...], ...], plan_of: tuple[int, ...]
) -> tuple[Packing | None, ...]:
    """Run.calls of plans whose rows have these branches."""
    known: dict[tuple, Packing] = {}

    def packing(i: int) -> Packing:
        needs = tuple(rows[i] if i < len(rows) else () for rows in branches)
        if needs not in known:
            known[needs] = Packing(tuple(needs[p] for p in plan_of))
        return known[needs]

    return (None, *(packing(i) for i in range(1, max(map(len, branches)) + 1)))


def named(condition: Condition | None) -> list[tuple[str, Tensor]]:
    """The tensors of a condition with their names, sorted; that of a plain tensor is ""."""
    if condition is None:
        return []
    return sorted(condition.items()) if isinstance(condition, Mapping) else [("", condition)]
