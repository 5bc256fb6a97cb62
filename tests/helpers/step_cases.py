"""Random cases of the op `step`, shared by the tests of all its implementations.

What a row must not read is NaN, and what it must not write keeps a value that shows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from group_norm_cases import base_of

from diffusion_engine.ops import layout as at
from diffusion_engine.ops.registry import resolve
from diffusion_engine.ops.step import LABEL_DTYPES, NETWORK_DTYPES, StepArgs, Table

SHAPES = [
    (1,),
    (3,),
    (2, 1),
    (4, 1, 1),
    (1, 3, 5),
    (3, 5, 7),
    (4, 8, 8),
    (3, 16, 12),
    (2, 33, 31),
    (5, 9),
    (8, 130),
]
INF = float("inf")
NO_INT64 = (float("nan"), INF, -INF, 1e300, -1e300, 2.0**63)


@dataclass
class Case:
    """The arguments of StepArgs and the outputs of the network."""

    fields: dict[str, Any]
    outs: list[torch.Tensor]


def make(seed: int, shapes=SHAPES) -> Case:
    return _Maker(np.random.default_rng(seed), shapes).case()


def run(
    backend: str, case: Case, device: str = "cpu", launched: Callable[..., Any] | None = None
) -> dict[str, torch.Tensor]:
    """Every buffer after one launch on copies of the case.

    launched  called with the bound step and the outputs in place of a launch
    """
    fields = {
        name: Table(*(copied(t, device) for t in value))
        if isinstance(value, Table)
        else copied(value, device)
        for name, value in case.fields.items()
    }
    outs = [copied(out, device) for out in case.outs]
    args = StepArgs(**fields)
    step = resolve("step", backend, args)
    step(outs) if launched is None else launched(step, outs)
    buffers = {n: t for n, t in vars(args).items() if isinstance(t, torch.Tensor)}
    buffers |= dict(zip(("coef", "index", "label_table"), args.table, strict=True))
    buffers |= {f"out{i}": out for i, out in enumerate(outs)}
    return {name: t.cpu() for name, t in buffers.items()}


def differences(got: dict, want: dict, rounded: tuple[str, ...] = ()) -> list[str]:
    """The buffers that differ, NaN being equal to NaN; those in `rounded` by more than bfloat16's unit."""
    found = []
    for name in want:
        a, b = got[name].double(), want[name].double()
        same = (a == b) | (a.isnan() & b.isnan())
        if name in rounded:
            same |= (a - b).abs() <= 2.0**-7 * b.abs()
        if not same.all():
            first = (~same).nonzero()[0].tolist()
            found.append(
                f"{name}: {int((~same).sum())} of {same.numel()} differ, the first at {first}: "
                f"{a[tuple(first)].item()!r} instead of {b[tuple(first)].item()!r}"
            )
    return found


def copied(value: Any, device: str = "cpu") -> Any:
    """A copy with the same strides."""
    if not isinstance(value, torch.Tensor):
        return value
    memory = base_of(value).to(device, copy=True)
    return torch.as_strided(memory, value.shape, value.stride(), value.storage_offset())


def check_given(backend: str) -> None:
    """Samples that draw have the bits of a step without noise, those that read those of one that reads it
    for all, normals of the known region included."""
    tried = 0
    for seed in range(200):
        case = make(seed, [(3,), (4, 1, 1), (3, 5, 7)])
        fields = case.fields
        if (not fields["normals"] and "mask" not in fields) or len(fields["row"]) < 2:
            continue
        tried += 1
        given = torch.arange(seed, seed + len(fields["row"]), dtype=torch.int32) % 2
        mixed = drawing(case, given)
        noise = mixed.fields["noise"].nan_to_num(0.5)
        everyone = Case(
            {n: v for n, v in mixed.fields.items() if n != "given"} | {"noise": noise}, case.outs
        )
        got, drew, read = (run(backend, c) for c in (mixed, drawing(case, None), everyone))
        for want, who in ((drew, given == 0), (read, given != 0)):
            for name in ("slots", "denoised", "status"):
                if name in got:
                    a, b = (
                        made[name].movedim(int(name == "slots"), 0)[who] for made in (got, want)
                    )
                    assert not differences({name: a}, {name: b}), f"seed {seed}, {name}"
        if tried == 12:
            return
    raise AssertionError("too few cases with normals")


class _Maker:
    def __init__(self, rng: np.random.Generator, shapes) -> None:
        self.rng = rng
        self.shape = shapes[rng.integers(len(shapes))]
        self.batch = int(rng.integers(1, 6))
        self.slots = int(rng.integers(1, at.SLOTS + 1))
        self.outputs = int(rng.choice([0, 1, 1, 2, 2, 3, 4, 8, 16]))
        self.normals = int(rng.integers(0, at.NORMALS + 1))
        self.inputs = int(rng.integers(0, at.INPUTS + 1))
        self.entries = int(rng.integers(1, 4))
        self.rows = int(rng.integers(1, 5))
        self.learned = self.chance(0.3)
        self.masked = self.chance(0.3)
        self.formats = ([True], [False], [True, False])[rng.choice(3, p=(0.4, 0.3, 0.3))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def weights(self, *shape: int) -> np.ndarray:
        """Normals, half of them zero."""
        return self.rng.standard_normal(shape) * (self.rng.random(shape) < 0.5)

    def case(self) -> Case:
        # Blocks of the network's outputs, and what they hold: filled where a row reads.
        sizes = self.rng.integers(1, 4, size=self.rng.integers(1, at.TENSORS + 1))
        if self.outputs == 0 or self.chance(0.1):
            sizes = sizes[:0]
        self.out_entries = int(self.rng.integers(1, 7))
        self.blocks = int(sizes.sum())
        coef, index = self.table()
        row = self.rng.integers(-1, self.rows, self.batch).astype(np.int32)
        src = self.rng.integers(-1, self.out_entries, (self.batch, self.outputs)).astype(np.int32)
        fields = {
            "slots": self.state(coef, index, row),
            "row": torch.from_numpy(row),
            "seed": torch.from_numpy(self.rng.integers(-(2**63), 2**63 - 1, self.batch)),
            "table": Table(
                torch.from_numpy(coef),
                torch.from_numpy(index),
                torch.from_numpy(self.labels()),
            ),
            "src": torch.from_numpy(src) if self.outputs or self.chance(0.5) else None,
            "normals": self.normals,
            "inputs": self.inputs,
            "learned": self.learned,
        }
        outs = [
            self.tensor(self.out_entries, blocks=int(n), dtype=self.dtype(), fill=torch.nan)
            for n in sizes
        ]
        self.fill_outputs(outs, sizes, coef, index, row, src)
        return Case(fields | self.others(), outs)

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        rows, k, j, m = self.rows, self.slots, self.outputs, self.normals
        coef = np.zeros((rows, at.COEF), np.float32)
        index = np.zeros((rows, at.INDEX), np.int32)
        coef[:, at.P : at.P + k] = self.weights(rows, k)
        coef[:, at.Q : at.Q + j] = self.weights(rows, j)
        coef[:, at.RAW : at.RAW + j] = self.weights(rows, j)
        mixing = coef[:, at.A : at.D].reshape(rows, at.SLOTS, at.SLOTS)
        mixing[:, :k, :k] = self.weights(rows, k, k)
        coef[:, at.D : at.D + k] = self.weights(rows, k)
        coef[:, at.E : at.E + k] = self.weights(rows, k)
        noise = coef[:, at.C : at.C_IN].reshape(rows, at.SLOTS, at.NORMALS)
        noise[:, :k, :m] = self.weights(rows, k, m)
        coef[:, at.SCALE] = self.rng.choice([1.0, 1.0, 0.7], rows)
        coef[:, at.C_IN : at.C_IN + self.inputs] = self.rng.standard_normal((rows, self.inputs))
        coef[:, at.U0 : at.U1 + 1] = self.weights(rows, 2)
        index[:, at.NEXT] = self.rng.integers(-1, rows, rows)
        index[:, at.KEY] = self.rng.integers(-(2**31), 2**31, rows)
        index[:, at.JV] = -1
        for r in range(rows):
            clips = [(-INF, INF), (-1.0, 1.0), (-0.5, INF), (-INF, 0.5)]
            coef[r, at.LO], coef[r, at.HI] = clips[self.rng.integers(len(clips))]
            self.index_row(coef[r], index[r], mixing[r], noise[r])
        return coef, index

    def index_row(self, coef, index, mixing, noise) -> None:
        index[at.WRITES] = self.rng.integers(0, 1 << self.slots) | self.chance(0.7)
        index[at.READ : at.READ + at.INPUTS] = self.rng.integers(0, self.slots, at.INPUTS)
        index[at.H : at.H + self.outputs] = self.rng.integers(0, max(self.blocks, 1), self.outputs)
        reads = (mixing != 0).any(axis=0) | (coef[at.P : at.Q] != 0)
        for i in range(self.inputs):
            reads[index[at.READ + i]] |= not index[at.WRITES] >> index[at.READ + i] & 1
        index[at.READS] = sum(1 << k for k in range(at.SLOTS) if reads[k])
        flags = at.DENOISED * bool(coef[at.D : at.E].any())
        flags |= at.RAW_USED * bool(coef[at.E : at.C].any())
        flags |= sum(at.NORMAL << m for m in range(at.NORMALS) if noise[:, m].any())
        if self.learned and self.outputs and self.chance(0.7):
            flags |= at.LEARNED
            index[at.JV] = self.rng.integers(self.outputs)
            coef[at.V0] = self.rng.choice([0.3, -0.2, 100.0, -100.0], p=[0.4, 0.4, 0.1, 0.1])
            coef[at.V1] = self.rng.standard_normal()
        if self.masked and self.chance(0.7):
            flags |= at.MASKED
        index[at.FLAGS] = flags

    def labels(self) -> np.ndarray:
        labels = self.rng.integers(-2, 2000, (self.rows, at.LABELS)) * 0.5
        if self.chance(0.2):
            labels[self.rng.integers(self.rows), self.rng.integers(at.LABELS)] = self.rng.choice(
                NO_INT64
            )
        return labels

    def dtype(self) -> torch.dtype:
        return NETWORK_DTYPES[self.rng.integers(len(NETWORK_DTYPES))]

    def tensor(self, *lead: int, dtype=torch.float32, blocks: int = 1, fill=None) -> torch.Tensor:
        """[*lead, blocks * C, *pixel] of normals, in one of the case's memory formats; at times the first
        channels of more, or every second one."""
        channels, pixel = self.shape[0] * blocks, self.shape[1:]
        last = self.formats[self.rng.integers(len(self.formats))]
        step, room = [(1, 0), (1, 2), (2, 1)][self.rng.choice(3, p=(0.8, 0.1, 0.1))]
        all_channels = step * channels + room
        size = (*lead, *pixel, all_channels) if last else (*lead, all_channels, *pixel)
        made = torch.from_numpy(self.rng.standard_normal(size)).to(dtype)
        if fill is not None:
            made.fill_(fill)
        made = made.movedim(-1, len(lead)) if last else made
        return made[(*[slice(None)] * len(lead), slice(0, step * channels, step))]

    def given(self, *lead: int) -> torch.Tensor:
        """A tensor that is only read: at times one sample, or one channel, for all."""
        made = self.tensor(*lead)
        if self.chance(0.2):
            axis = len(lead) - int(self.rng.integers(2))
            made = made.narrow(axis, 0, 1).expand(made.shape)
        return made

    def state(self, coef: np.ndarray, index: np.ndarray, row: np.ndarray) -> torch.Tensor:
        slots = self.tensor(self.slots, self.batch)
        for b in np.flatnonzero(row >= 0):
            for k in range(self.slots):
                if not index[row[b], at.READS] >> k & 1 and self.chance(0.7):
                    slots[k, b] = torch.nan
        if self.chance(0.15):
            values = [INF, -INF, torch.nan, 3e38]
            slots[0, 0].flatten()[-1:].fill_(values[self.rng.integers(4)])
            slots[self.rng.integers(self.slots), self.rng.integers(self.batch), -1] = values[
                self.rng.integers(4)
            ]
        return slots

    def fill_outputs(self, outs, sizes, coef, index, row, src) -> None:
        if not outs:
            return
        first = np.concatenate([[0], np.cumsum(sizes)])
        for b in np.flatnonzero(row >= 0):
            r = row[b]
            for j in range(self.outputs):
                variance = index[r, at.FLAGS] & at.LEARNED and index[r, at.JV] == j
                used = coef[r, at.Q + j] or coef[r, at.RAW + j] or variance
                if src[b, j] < 0 or not used:
                    continue
                t = int(np.searchsorted(first, index[r, at.H + j], side="right")) - 1
                block = index[r, at.H + j] - first[t]
                c = self.shape[0]
                view = outs[t][src[b, j], block * c : (block + 1) * c]
                view.copy_(torch.from_numpy(self.rng.standard_normal(view.shape)))

    def others(self) -> dict[str, Any]:
        """The optional buffers."""
        fields: dict[str, Any] = {}
        network = self.batch * self.entries + 2
        if self.chance(0.8):
            entries = self.rng.permutation(network)[: self.batch * self.entries]
            entries[self.rng.random(len(entries)) < 0.2] = -1
            dst = entries.reshape(self.batch, self.entries).astype(np.int32)
            fields["dst"] = torch.from_numpy(dst)
            if self.inputs:
                net_in = self.tensor(
                    network, blocks=self.inputs, dtype=self.dtype(), fill=torch.nan
                )
                if self.chance(0.3):  # channels that belong to somebody else
                    net_in = torch.cat([net_in, net_in[:, :1]], dim=1)
                fields["net_in"] = net_in
            if self.chance(0.8):
                label = LABEL_DTYPES[self.rng.integers(len(LABEL_DTYPES))]
                fields["label"] = torch.full((network,), -7, dtype=label)
                if self.chance(0.5):
                    fields["end_label"] = torch.full((network,), -7, dtype=label)
        if self.masked:
            fields["mask"] = (self.tensor(self.batch) > 0).float()
            if self.chance(0.3):
                fields["mask"] = self.tensor(self.batch).sigmoid()
            fields["known"] = self.given(self.batch)
        if self.chance(0.3):
            fields["noise"] = self.given(at.NORMALS + 1, self.batch)
        if self.chance(0.5):
            fields["denoised"] = self.tensor(self.batch, fill=torch.nan)
        if self.chance(0.7):
            fields["status"] = torch.from_numpy(
                self.rng.integers(0, 2, self.batch).astype(np.int32)
            )
        if self.chance(0.7):
            fields["ticket"] = torch.zeros(self.batch, dtype=torch.int32)
        if "noise" in fields and self.chance(0.6):
            given = torch.from_numpy(self.rng.integers(0, 2, self.batch).astype(np.int32))
            fields["given"] = given
            poison(fields["noise"], given)
        return fields


def poison(noise: torch.Tensor, given: torch.Tensor) -> None:
    """NaN where a sample draws its own, unless samples share memory."""
    memory = noise.narrow(2, 0, 1) if noise.stride(2) == 0 else noise
    if noise.stride(1) != 0:
        memory[:, given == 0] = torch.nan


def drawing(case: Case, given: torch.Tensor | None) -> Case:
    """The case with normals that are drawn: of all samples without `given`, else where it is 0, and NaN in
    the noise there."""
    without = {n: v for n, v in case.fields.items() if n not in ("noise", "given")}
    if given is None:
        return Case(without, case.outs)
    slots = case.fields["slots"]
    noise = torch.randn(at.NORMALS + 1, *slots.shape[1:])
    poison(noise, given)
    return Case(without | {"noise": noise, "given": given}, case.outs)


def args(**fields):
    state = torch.zeros(1, 2, 3, 4, 4)
    table = Table(
        torch.zeros(1, at.COEF),
        torch.zeros(1, at.INDEX, dtype=torch.int32),
        torch.zeros(1, at.LABELS, dtype=torch.float64),
    )
    given = {
        "slots": state,
        "row": torch.zeros(2, dtype=torch.int32),
        "seed": torch.zeros(2, dtype=torch.int64),
        "table": table,
    }
    return StepArgs(**given | fields)
