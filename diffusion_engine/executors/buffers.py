"""The tensors of a batch, at addresses that never change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..networks.network import Condition
from ..ops import layout
from ..ops.brownian import BrownianArgs
from ..ops.step import StepArgs, Table
from . import guiding
from .capacity import Capacity
from .job import Job, named
from .latents import Latents
from .packing import Kinds
from .placed import Table as Places
from .rows import RowTable

# What a ScoreNetwork is called with: input, label, condition, latent, end label.
Inputs = tuple[Tensor, Tensor, Condition | None, Tensor | None, Tensor | None]


def some(given: Inputs, entries: Sequence[int]) -> Inputs:
    """The inputs of some entries of a call, each as often as it is named."""
    index = torch.tensor(entries, device=given[0].device)

    def of(value: Condition | Tensor | None) -> Condition | Tensor | None:
        if isinstance(value, Mapping):
            return {name: tensor[index] for name, tensor in value.items()}
        return None if value is None else value[index]  # which keeps the memory format

    return tuple(map(of, given))  # type: ignore[return-value]


class Buffers:
    """Room for a capacity.

    step        what the step works on
    rows        its row table
    paths       what the op `brownian` fills the step's normals from
    guides      what guides each row of the table, where something may
    latents     the network's z, where it takes one
    conditions  [branches x seats, ...] each, of every branch of every seat
    condition   [room, ...] each, of the entries of a call
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = s = capacity
        state, memory = (s.seats, *s.shape), s.branches * s.seats
        rows = s.rows + s.seats  # each seat has one of its own
        self.conditions = [self._zeros(memory, *shape, dtype=d) for _, shape, d in s.condition]
        self.condition = [self._zeros(s.room, *shape, dtype=d) for _, shape, d in s.condition]
        self.step = StepArgs(
            slots=self._images(s.slots, *state),
            row=self._zeros(s.seats).fill_(-1),
            seed=self._zeros(s.seats, dtype=torch.int64),
            table=Table(
                self._zeros(rows, layout.COEF, dtype=s.state_dtype),
                self._zeros(rows, layout.INDEX),
                self._zeros(rows, layout.LABELS, dtype=torch.float64),
            ),
            src=self._zeros(s.seats, s.outputs),
            dst=self._zeros(s.seats, s.entries),
            net_in=self._images(s.room, s.shape[0] * s.inputs, *s.shape[1:], dtype=s.dtype),
            label=self._zeros(s.room, dtype=s.label_dtype),
            end_label=self._zeros(s.room, dtype=s.label_dtype) if s.ends else None,
            noise=self._images(s.draws, *state, dtype=torch.float32) if s.draws else None,
            given=self._zeros(s.seats) if s.draws else None,
            mask=self._images(*state, dtype=torch.float32) if s.masked else None,
            known=self._images(*state, dtype=torch.float32) if s.masked else None,
            denoised=self._images(*state) if s.denoised else None,
            status=self._zeros(s.seats),
            ticket=self._zeros(s.seats),
            normals=s.normals,
            inputs=s.inputs,
            learned=s.learned,
        )
        self.paths = self._paths() if s.brownian else None
        self.guides = self._zeros(rows, guiding.WIDTH, dtype=torch.float64) if s.guiders else None
        kinds = Kinds(s.seats, s.branches, s.entries, s.outputs)
        self.rows = RowTable(self.step.table, s.seats, self.paths, kinds, self.guides)
        self.latents = Latents(self.step, s.latent, s.room, s.dtype) if s.latent else None
        self._slots = self.step.slots.unbind()
        self._states = self._slots[0].split(1)
        self._names = [name for name, _, _ in s.condition]
        self._inputs: dict[int, Inputs] = {}
        self.bytes = sum(t.nbytes for t in self._tensors())

    def _paths(self) -> BrownianArgs:
        s, step = self.capacity, self.step
        assert step.noise is not None
        rows = len(step.table.label)
        terms = self._zeros(rows, s.draws, layout.HEADER + layout.TERMS)
        weight = self._zeros(rows, s.draws, layout.TERMS, dtype=torch.float32)
        return BrownianArgs(step.noise, step.seed, step.row, terms, weight)

    def _tensors(self) -> list[Tensor]:
        more = [] if self.paths is None else [self.paths.terms, self.paths.weight]
        more += [] if self.latents is None else self.latents.tensors()
        more += [] if self.guides is None else [self.guides]
        return [*self.step.tensors(), *self.conditions, *self.condition, *more]

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.capacity.device)

    def _images(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros [..., C, *pixel] in the network's memory format."""
        s = self.capacity
        dtype = dtype or s.state_dtype
        if s.memory_format is not torch.channels_last:
            return self._zeros(*shape, dtype=dtype)
        *lead, channels, height, width = shape
        return self._zeros(*lead, height, width, channels, dtype=dtype).movedim(-1, -3)

    def inputs(self, count: int) -> Inputs:
        """What the network is called with for the first `count` entries."""
        if count not in self._inputs:
            net_in, label = self.step.net_in, self.step.label
            assert net_in is not None and label is not None
            given = [kept[:count] for kept in self.condition]
            condition: Condition | None = None
            if self._names == [""]:
                condition = given[0]
            elif self._names:
                condition = dict(zip(self._names, given, strict=True))
            latent = None if self.latents is None else self.latents.given[:count]
            end = None if self.step.end_label is None else self.step.end_label[:count]
            self._inputs[count] = net_in[:count], label[:count], condition, latent, end
        return self._inputs[count]

    def gather(self, places: Places) -> None:
        """Puts in place the conditions of a call's entries, and whose latent each takes."""
        if not self.condition and self.latents is None:
            return
        index = places if isinstance(places, Tensor) else torch.from_numpy(places)
        for kept, all_of in zip(self.condition, self.conditions, strict=True):
            torch.index_select(all_of, 0, index, out=kept[: len(index)])
        if self.latents is not None:
            torch.remainder(index, self.capacity.seats, out=self.latents.of[: len(index)])

    def seat(self, seats: Sequence[int], jobs: Sequence[Job]) -> None:
        """Copies what jobs were given into their seats."""
        step, count = self.step, self.capacity.seats
        for k in range(self.capacity.inputs if any(job.x is not None for job in jobs) else 0):
            put(step.slots[k], seats, [self._part(job, k) for job in jobs])
        if step.mask is not None and step.known is not None:
            put(step.mask, seats, [job.mask for job in jobs])
            put(step.known, seats, [job.known for job in jobs])
        if self.conditions and len(seats) == 1:  # one that joins the others: 6.5 us in place of 9
            for branch, condition in enumerate(jobs[0].conditions):
                place = branch * count + seats[0]
                for kept, (_, tensor) in zip(self.conditions, named(condition), strict=True):
                    kept.select(0, place).copy_(tensor, non_blocking=True)
        elif self.conditions:
            for branch in range(self.capacity.branches):
                self._put_branch(branch, [branch * count + seat for seat in seats], jobs)

    def _part(self, job: Job, k: int) -> Tensor | None:
        """Slot k of a given state."""
        channels = self.capacity.shape[0]
        if job.x is None or len(job.x) <= k * channels:
            return None
        return job.x if len(job.x) == channels else job.x.narrow(0, k * channels, channels)

    def _put_branch(self, branch: int, places: Sequence[int], jobs: Sequence[Job]) -> None:
        given = [job.conditions[branch : branch + 1] for job in jobs]
        lists = [[t for _, t in named(*found)] if found else [] for found in given]
        for i, kept in enumerate(self.conditions):
            put(kept, places, [tensors[i] if tensors else None for tensors in lists])

    def read(self, seats: Sequence[int], parts: int = 1) -> Tensor:
        """The samples of some seats, [n, parts x C, *pixel], in memory of their own."""
        slots, first, count = self._slots, seats[0], len(seats)
        if count == parts == 1:  # a view that is there: 1.5 us in place of 5
            return self._states[first].clone()
        side_by_side = list(seats) == list(range(first, first + count))
        where = slice(first, first + count) if side_by_side else list(seats)
        return torch.cat([slots[k][where] for k in range(parts)], dim=1)  # keeps the memory format


def put(kept: Tensor, places: Sequence[int], given: Sequence[Tensor | None]) -> None:
    """Copies single samples' tensors to their places in [places, ...]; None leaves one alone."""
    first, count = places[0], len(places)
    devices = {None if tensor is None else tensor.device for tensor in given}
    together = count > 1 and len(devices) == 1 and None not in devices
    if together and list(places) == list(range(first, first + count)):
        kept[first : first + count].copy_(torch.stack(list(given)), non_blocking=True)  # type: ignore[arg-type]
        return
    for place, tensor in zip(places, given, strict=True):
        if tensor is not None:
            kept[place].copy_(tensor, non_blocking=True)
