"""The buffers of runs of one signature, at addresses that never change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import checks
from ..networks.network import Condition
from ..ops import layout
from ..ops.brownian import BrownianArgs
from ..ops.step import StepArgs
from ..plan import brownian
from ..plan.table import Arena
from .latents import Latents
from .packing import Packing
from .run import Run, Signature

PACKINGS = 256  # kept on the device for runs to come

# What a ScoreNetwork is called with: input, label, condition, latent.
Inputs = tuple[Tensor, Tensor, Condition | None, Tensor | None]


@dataclass(frozen=True)
class Tables:
    """A packing on the device: src and dst of the step, the sample and the condition of each entry, and
    what exactly its entries are called with."""

    src: Tensor
    dst: Tensor
    of: Tensor
    condition: list[Tensor]
    inputs: Inputs


class Space:
    """Buffers with room for a signature; `load` puts a run into them.

    static     whether calls find their conditions in buffers that stay
    args       what the step works on
    paths      what the op `brownian` fills the step's normals from, where a run asks for it
    latents    the network's z, where it takes one
    condition  those buffers, [entries, ...] each
    """

    def __init__(self, signature: Signature, static: bool = False) -> None:
        self.signature = s = signature
        self.tables: dict[Packing, Tables] = {}
        self._loaded: Arena | None = None
        kept = s.condition if static else ()
        self.condition = [self._zeros(self.room, *shape, dtype=dtype) for _, shape, dtype in kept]
        state = (s.samples, *s.shape)
        self.args = StepArgs(
            slots=self._images(s.slots, *state),
            row=self._zeros(s.samples),
            seed=self._zeros(s.samples, dtype=torch.int64),
            table=Arena.empty(s.rows, s.state_dtype, s.device),
            src=self._zeros(s.samples, s.outputs),
            dst=self._zeros(s.samples, s.entries),
            net_in=self._images(self.room, s.shape[0] * s.inputs, *s.shape[1:], dtype=s.dtype),
            label=self._zeros(self.room, dtype=s.label_dtype),
            noise=self._images(s.draws, *state, dtype=torch.float32) if s.draws else None,
            mask=self._images(*state, dtype=torch.float32) if s.masked else None,
            known=self._images(*state, dtype=torch.float32) if s.masked else None,
            denoised=self._images(*state) if s.denoised else None,
            status=self._zeros(s.samples),
            ticket=self._zeros(s.samples),
            normals=s.normals,
            inputs=s.inputs,
            learned=s.learned,
        )
        self.paths = self._paths() if s.brownian else None
        self.latents = Latents(self.args, s.latent, self.room, s.dtype) if s.latent else None

    def _paths(self) -> BrownianArgs:
        s, args = self.signature, self.args
        assert args.noise is not None
        terms = self._zeros(s.rows, s.draws, layout.HEADER + layout.TERMS)
        weight = self._zeros(s.rows, s.draws, layout.TERMS, dtype=torch.float32)
        return BrownianArgs(args.noise, args.seed, args.row, terms, weight)

    @property
    def room(self) -> int:
        """Entries of the network's batch at most."""
        return self.signature.samples * self.signature.entries

    @property
    def bytes(self) -> int:
        tables = [t for kept in self.tables.values() for t in (kept.src, kept.dst, *kept.condition)]
        more = [] if self.paths is None else [self.paths.terms, self.paths.weight]
        more += [] if self.latents is None else self.latents.tensors()
        return sum(t.nbytes for t in (*self.args.tensors(), *self.condition, *more, *tables))

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.signature.device)

    def _images(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Zeros [..., C, *pixel] in the network's memory format."""
        s = self.signature
        dtype = dtype or s.state_dtype
        if s.memory_format is not torch.channels_last:
            return self._zeros(*shape, dtype=dtype)
        *lead, channels, height, width = shape
        return self._zeros(*lead, height, width, channels, dtype=dtype).movedim(-1, -3)

    def make_room(self, run: Run) -> bool:
        """Drops the tables of former runs where there would be too many; whether it did."""
        full = len(self.tables.keys() | set(run.packings)) > PACKINGS
        if full:
            self.tables.clear()
        return full

    def load(self, run: Run) -> None:
        """Puts a run in front of its first row. Samples beyond the run's are left alone by every row."""
        args, n = self.args, run.samples
        if self._loaded is None or [*map(id, self._loaded.plans)] != [*map(id, run.plans)]:
            arena = Arena.of(run.plans, self.signature.state_dtype, self.signature.device)
            for kept, new in zip(args.table, arena.table, strict=True):
                kept[: len(new)].copy_(new)
            if self.paths is not None:
                rows = brownian.tables(run.plans, self.signature.draws)
                for kept, values in zip((self.paths.terms, self.paths.weight), rows, strict=True):
                    kept[: len(values)].copy_(torch.from_numpy(values))
            self._loaded = arena
        first = np.full(self.signature.samples, -1, np.int32)
        first[:n] = [self._loaded.first[p] for p in run.plan_of]
        args.row.copy_(torch.from_numpy(first))
        args.seed[:n].copy_(run.seeds)
        assert args.status is not None and args.net_in is not None
        args.status.zero_()
        # Padded entries are computed too: not with what a run before left there, which may be NaN.
        args.net_in.zero_()
        parts = () if run.x is None else run.x.split(self.signature.shape[0], dim=1)
        given = [*zip(args.slots, parts), (args.mask, run.mask), (args.known, run.known)]  # noqa: B905
        for kept_images, images in given:
            if images is not None and kept_images is not None:
                kept_images[:n].copy_(images)
        for packing in run.packings:
            self._place(run, packing)

    def _place(self, run: Run, packing: Packing) -> None:
        condition = run.condition_of(packing)
        if packing in self.tables:
            for kept, new in zip(self.tables[packing].condition, condition, strict=True):
                kept.copy_(new)
            return
        s = self.signature
        src = torch.from_numpy(packing.src(s.samples, s.outputs)).to(s.device)
        dst = torch.from_numpy(packing.dst(s.samples, s.entries)).to(s.device)
        of = torch.tensor([b for _, b in packing.entries], dtype=torch.int64, device=s.device)
        self.tables[packing] = Tables(
            src, dst, of, condition, self._inputs(packing.count, condition)
        )

    def read(self, call: Packing) -> None:
        """Puts in place what a call and its step read: the conditions, and which entries are whose."""
        tables = self.tables[call]
        assert self.args.src is not None
        self.args.src.copy_(tables.src)
        if self.latents is not None:
            self.latents.of[: len(tables.of)].copy_(tables.of)
        for kept, new in zip(self.condition, tables.condition, strict=bool(self.condition)):
            kept[: len(new)].copy_(new)

    def write(self, call: Packing | None) -> None:
        """The next step fills the entries of this call."""
        assert self.args.dst is not None and call is not None
        self.args.dst.copy_(self.tables[call].dst)

    def fill_noise(self, run: Run, i: int) -> None:
        """Puts the given normals of rows i into the noise buffer."""
        noise, given = self.args.noise, run.noise
        assert noise is not None and given is not None
        rows = [plan.rows[i] for plan in run.plans if i < len(plan.rows)]
        for m in range(len(noise)):
            if any(row.draws(m) if m < 2 else row.known and row.known[1] for row in rows):
                kept, normals = noise[m, : run.samples], given(i, m)
                tensor = isinstance(normals, Tensor)
                if not tensor or normals.shape != kept.shape:  # one for all would be no noise
                    got = list(normals.shape) if tensor else checks.said(normals)
                    raise ValueError(
                        f"noise of row {i}, draw {m} is {got}; give a tensor {list(kept.shape)}"
                    )
                kept.copy_(normals)

    def entries(self, call: Packing) -> Inputs:
        """What exactly a call's entries are called with."""
        return self.tables[call].inputs

    def bucket(self, count: int) -> Inputs:
        """What the network is called with for the first `count` entries, at addresses that stay."""
        return self._inputs(count, [kept[:count] for kept in self.condition])

    def _inputs(self, count: int, tensors: list[Tensor]) -> Inputs:
        assert self.args.net_in is not None and self.args.label is not None
        condition: Condition | None = None
        names = [name for name, _, _ in self.signature.condition]
        if names == [""]:
            condition = tensors[0]
        elif names:
            condition = dict(zip(names, tensors, strict=True))
        latent = None if self.latents is None else self.latents.given[:count]
        return self.args.net_in[:count], self.args.label[:count], condition, latent
