"""What a batch has room for, fixed when it is made, and why a job does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from .. import checks
from ..networks.network import HALF, ScoreNetwork
from ..ops import layout
from ..plan import Plan
from .job import Given, Job, named
from .packing import bucket

# (name, shape, dtype) of each tensor of a sample's condition; a plain tensor's name is ""
Kind = tuple[tuple[str, tuple[int, ...], torch.dtype], ...]


@dataclass(frozen=True)
class Capacity:
    """Everything that decides buffers and kernels: what batches of one capacity run differs in data alone.

    seats, rows        samples at a time; rows of plans that the table holds
    room               entries of the network's batch, of all samples together
    slots, outputs, entries, inputs, normals, learned   as in StepArgs, of the widest plan
    branches           branches that plans call: 1 without guidance
    draws              normals a row may read instead of drawing, 0 where nobody gives any
    brownian           whether the op `brownian` may fill those
    masked, denoised   whether a known region is kept, whether `denoised` is written
    shape              of x, (C, *pixel)
    memory_format      of the network's input
    dtype, state_dtype, label_dtype   of the network's input, of the slots, of the labels that the step writes
    device             of the buffers
    condition          the tensors of one sample's condition
    latent             size of the network's z, 0 where it takes none
    ends               whether the network is told where its step ends
    guiders            the names of those whose rules may guide rows
    fixed              every call has `room` entries, padded where fewer are due: a sample's bits depend on
                       the network, its own job and that size
    """

    seats: int
    rows: int
    room: int
    slots: int
    outputs: int
    entries: int
    inputs: int
    normals: int
    learned: bool
    branches: int
    draws: int
    brownian: bool
    masked: bool
    denoised: bool
    shape: tuple[int, ...]
    memory_format: torch.memory_format
    dtype: torch.dtype
    state_dtype: torch.dtype
    label_dtype: torch.dtype
    device: torch.device
    condition: Kind
    latent: int
    ends: bool = False
    guiders: tuple[str, ...] = ()
    fixed: bool = False

    ROWS = 256  # room for rows comes in powers of two from here on

    @classmethod
    def of(
        cls,
        network: ScoreNetwork,
        plans: Sequence[Plan],
        seats: int,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        state_dtype: torch.dtype = torch.float32,
        conditions: Sequence[Given] = (),
        given: bool = False,
        brownian: bool = False,
        masked: bool = False,
        denoised: bool = False,
    ) -> Capacity:
        """What so many samples of these plans take, in seats of their own.

        conditions  of one sample, by branch
        given       whether samples may come with noise of their own
        """
        entries = max(plan.entries for plan in plans)
        normals = max(plan.normals for plan in plans)
        draws = layout.NORMALS + 1 if masked else normals
        return cls(
            seats=seats,
            rows=sum(len(plan.rows) for plan in plans),
            room=seats * entries,
            slots=max(plan.slots for plan in plans),
            outputs=max(plan.outputs for plan in plans),
            entries=entries,
            inputs=max(plan.inputs for plan in plans),
            normals=normals,
            learned=any(plan.learned for plan in plans),
            branches=max(len(conditions), *(plan.last_branch + 1 for plan in plans)),
            draws=draws if given or brownian else 0,
            brownian=brownian and draws > 0,
            masked=masked,
            denoised=denoised,
            shape=network.shape,
            memory_format=network.memory_format,
            dtype=dtype,
            state_dtype=state_dtype,
            label_dtype=torch.float32 if network.label_dtype in HALF else network.label_dtype,
            device=device,
            condition=_widest([kind_of(condition) for condition in conditions]),
            latent=network.parameterisation.latent,
            ends=network.parameterisation.end_label is not None,
            guiders=tuple(sorted(frozenset[str]().union(*(plan.guiders for plan in plans)))),
        )

    def padded(self) -> Capacity:
        """With room for more samples and rows, so that runs of other sizes share it."""
        seats = bucket(self.seats)
        rows = max(self.ROWS, 1 << (self.rows - 1).bit_length())
        return replace(self, seats=seats, rows=rows, room=seats * self.entries)

    def objection(self, job: Job) -> str | None:
        """Why a job does not fit, whoever else is there, as a sentence; None where it does."""
        return self.plan_objection(job.plan) or self.given_objection(job)

    def led_objection(self, job: Job) -> str | None:
        """Why the job of a seat that is led does not fit."""
        if job.noise is not None or job.brownian:
            return "its noise is given, or a Brownian path's, and what leads it draws its own"
        return self.objection(job)

    def plan_objection(self, plan: Plan) -> str | None:
        """Why a plan does not fit."""
        if plan.inputs != self.inputs:
            return f"its network reads {plan.inputs} slots and this batch's {self.inputs}"
        widths = {
            "rows": (len(plan.rows), self.rows),
            "slots": (plan.slots, self.slots),
            "outputs": (plan.outputs, self.outputs),
            "entries a call": (plan.entries, min(self.entries, self.room)),
            "branches": (plan.last_branch + 1, self.branches),
            "normals": (plan.normals, self.normals),
        }
        for what, (need, have) in widths.items():
            if need > have:
                return f"its plan {plan.name!r} takes {need} {what} and this batch has {have}"
        if plan.learned and not self.learned:
            return f"its plan {plan.name!r} scales noise by a learned variance, which this batch does not"
        if plan.masked and not self.masked:
            return f"its plan {plan.name!r} keeps a known region, for which this batch has no mask"
        if missing := plan.guiders.difference(self.guiders):
            return (
                f"its plan {plan.name!r} is guided by {', '.join(missing)}, which this batch is not"
            )
        return None

    def given_objection(self, job: Job) -> str | None:
        """Why what a job is given does not fit."""
        if not isinstance(job.seed, Integral) or not 0 <= job.seed < 2**64:
            return f"its seed is {job.seed}; a seed lies in 0 ... 2^64 - 1 and is whole"
        if objection := self._function_objection(job):
            return objection
        if not job.plan.masked == (job.mask is not None) == (job.known is not None):
            return (
                "a plan that keeps a known region, mask= and known= come together; one is missing"
            )
        for name in ("mask", "known"):
            given = getattr(job, name)
            if given is not None and (objection := _shape_objection(name, given, (self.shape,))):
                return objection
        return self._state_objection(job) or self._condition_objection(job)

    def _function_objection(self, job: Job) -> str | None:
        if job.on_row is not None and not callable(job.on_row):
            return f"on_row is {checks.said(job.on_row)}; give a function of (row, x, denoised)"
        if job.on_slots is not None and not callable(job.on_slots):
            return f"on_slots is {checks.said(job.on_slots)}; give a function of (row, slots)"
        if job.noise is not None and job.brownian:
            return "it comes with noise of its own and a Brownian path; give one or the other"
        if job.noise is not None and not callable(job.noise):
            return f"noise is {checks.said(job.noise)}; give a function of (row, m)"
        if job.noise is not None and any(job.plan.draws) and not self.draws:
            return "it comes with noise of its own and this batch draws all"
        if job.brownian and any(job.plan.draws) and not self.brownian:
            return "its noise is a Brownian path's and this batch follows none"
        return None

    def _state_objection(self, job: Job) -> str | None:
        begins = job.plan.begins
        if job.x is None:
            if begins:
                return f"its plan {job.plan.name!r} begins with a given x, which is missing"
            return None
        plain = isinstance(job.x, Tensor) and job.x.shape == self.shape
        if not plain and (objection := _shape_objection("x", job.x, self._states())):
            return objection
        if len(job.x) < begins * self.shape[0]:
            return f"its plan {job.plan.name!r} begins with a given [x, v], and x is {list(job.x.shape)}"
        return None

    def _condition_objection(self, job: Job) -> str | None:
        conditions, last = job.conditions, job.plan.last_branch
        if not last < len(conditions) <= self.branches and (conditions or self.condition):
            return (
                f"it has conditions of {len(conditions)} branches, its plan calls {last + 1} and this batch "
                f"has {self.branches}"
            )
        for condition in conditions:
            kind = kind_of(condition)
            if kind != self.condition and not _fits(kind, self.condition):
                return f"its condition is {list(kind)} and this batch's are {list(self.condition)}"
        return None

    def _states(self) -> list[tuple[int, ...]]:
        """Shapes of a given state: x, and as many parts as the network reads."""
        channels, *pixel = self.shape
        return [(k * channels, *pixel) for k in range(1, min(self.inputs, self.slots) + 1)]


def _shape_objection(name: str, given: Any, shapes: Sequence[tuple[int, ...]]) -> str | None:
    tensor = isinstance(given, Tensor)
    if tensor and given.shape in shapes:
        return None
    wanted = " or ".join(str(list(shape)) for shape in shapes)
    if not tensor:
        return f"{name} is {checks.said(given)}; give a tensor {wanted}"
    return f"{name} has shape {list(given.shape)}; {wanted} is needed"


def kind_of(condition: Given) -> Kind:
    """The names, shapes and dtypes of one sample's condition."""
    if isinstance(condition, Tensor):
        return (("", tuple(condition.shape), condition.dtype),)
    return tuple((name, tuple(t.shape), t.dtype) for name, t in named(condition))


def _fits(kind: Kind, room: Kind) -> bool:
    """Whether a condition can be kept where there is room for another: the same names and shapes, and no
    dtype that holds more."""
    return [one[:2] for one in kind] == [one[:2] for one in room] and all(
        torch.promote_types(a[2], b[2]) == b[2] for a, b in zip(kind, room, strict=True)
    )


def _widest(kinds: Sequence[Kind]) -> Kind:
    """The condition of the first branch, in dtypes that hold those of all branches."""
    if not kinds:
        return ()
    columns = zip(*([dtype for *_, dtype in kind] for kind in kinds), strict=False)
    dtypes = [reduce(torch.promote_types, column) for column in columns]
    return tuple((name, shape, d) for (name, shape, _), d in zip(kinds[0], dtypes, strict=True))
