"""What the bits of a network's outputs depend on: the size of a call, an entry's place there, neighbours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..executors import Capacity, Executor, Job
from ..executors.buffers import Inputs, some
from ..executors.stages import as_called
from ..networks.network import ScoreNetwork
from ..processes import grids

MEET = 4  # entries of the call in which samples meet for the first time
Labels = tuple[float, float]
WATCHED, SCALES = 3, (1.0, 3.0, 0.5)

CURE = (
    "Put it into eval mode, take the cache or the global operation out, or serve it one sample at a time: "
    "Engine(network, capacity=1)"
)


class Probe:
    """A network on its device, called with the same few entries in calls of all sizes.

    given   the inputs of a call, whose conditions the watched entries have
    labels  that a call may have: where its step starts and where it ends
    sizes   that calls may have
    call    how it is called, where that is not the network itself
    found   of each size that was tried and each place there, which bits came: 0 are those of an entry alone;
            () where the call failed
    reason  why samples cannot share a call, or None

    An algorithm is chosen by size and place, never by values. Another one often comes to the same bits of one
    entry, where the end hides a difference: three are watched, away from pure noise and from clean data.
    """

    def __init__(
        self, network: ScoreNetwork, given: Inputs, labels: Labels, sizes: Iterable[int],
        call: Callable[..., Sequence[Tensor]] | None = None,
    ) -> None:  # fmt: skip
        self.network, self.sizes = network, set(sizes)
        self.found: dict[int, tuple[int, ...]] = {}
        self.reason: str | None = None
        self._call = call or as_called(network)
        self._watched = _watched(given, _labels(network, labels))
        self._seen: dict[tuple[bytes, ...], int] = {}
        self.look(1)

    def look(self, size: int) -> None:
        """Tries calls of a size, once: each watched entry among copies of itself, and all of them mixed."""
        if size in self.found:
            return
        try:
            alike = [self._bits([entry] * size) for entry in range(WATCHED)]
            for turn in range(WATCHED if size <= MEET else 1):
                self._compare(alike, [(place + turn) % WATCHED for place in range(size)])
            bits = zip(*alike, strict=True)
            self.found[size] = tuple(self._seen.setdefault(b, len(self._seen)) for b in bits)
        except Exception:  # memory ran out, or these values do not suit it: its calls will say so
            self.found[size] = ()

    def _compare(self, alike: Sequence[Sequence[bytes]], entries: Sequence[int]) -> None:
        """Whether entries have the bits beside others that they had among copies of themselves."""
        got = self._bits(entries)
        if got != [alike[entry][place] for place, entry in enumerate(entries)]:
            again = self._bits([0] * len(entries)) == alike[0]
            self.reason = _mixes(self.network.name) if again else _forgets(self.network.name)

    def meet(self) -> str | None:
        """Whether samples can share a call: the reason why not."""
        self.look(min(MEET, max(self.sizes)))
        return self.reason

    def settle(self, room: int) -> int:
        """The least size from `room` on whose places all give the same bits, among the next multiples of 4,
        8 and 16; `room` where there is none."""
        sizes = [room, *(-(-room // step) * step for step in (4, 8, 16))]
        for size in sizes:
            self.look(size)
            if self.alike(size):
                return size
        return room

    def finish(self) -> None:
        """Tries all sizes."""
        for size in sorted(self.sizes):
            self.look(size)

    def alike(self, size: int) -> bool:
        """Whether all places of calls of a size are known to give the same bits."""
        return len(set(self.found.get(size, ()))) == 1

    def agrees(self, size: int) -> bool:
        """Whether entries of a call of this size are known to have the bits that they have alone."""
        found = self.found.get(size, ())
        return bool(found) and not any(found) and self.reason is None

    @property
    def agreeing(self) -> int:
        """Up to which size all calls give the bits of an entry alone."""
        size = 0
        while self.agrees(size + 1):
            size += 1
        return size

    @property
    def invariant(self) -> bool:
        """Whether all sizes were tried, and no bit depends on any."""
        return all(map(self.agrees, list(self.sizes)))

    def groups(self) -> list[list[int]]:
        """The sizes that agree with one another bit for bit, those with an entry alone first; sizes whose
        places differ are in none."""
        kinds: dict[int, list[int]] = {}
        for size in sorted(self.found):
            if self.alike(size):
                kinds.setdefault(self.found[size][0], []).append(size)
        return sorted(kinds.values())

    def report(self) -> dict[str, Any]:
        """What was found, as JSON-able values."""
        return {
            "shape": list(self.network.shape),
            "agree": self.groups(),
            "by_place": [s for s in sorted(self.found) if self.found[s] and not self.alike(s)],
            "untried": [size for size in sorted(self.sizes) if not self.found.get(size)],
            "invariant": self.invariant,
            "promised": False,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        lines = [self._about]
        if self.reason:
            lines.append(f"  not batched: {self.reason}")
        for alone, group in zip([True] + [False] * len(self.groups()), self.groups(), strict=False):
            said = "the bits of an entry alone" if alone else "the same bits"
            lines.append(f"  {said:<27} calls of {_ranges(group)}")
        told = self.report()
        for said, name in (("bits that depend on places", "by_place"), ("not tried", "untried")):
            if told[name]:
                lines.append(f"  {said:<27} calls of {_ranges(told[name])}")
        return "\n".join(lines)

    @property
    def _about(self) -> str:
        x = self._watched[0]
        shape = "x".join(map(str, self.network.shape))
        dtype = str(x.dtype).removeprefix("torch.")
        return f"{self.network.name}, {shape} in {dtype} on {x.device}"

    def _bits(self, entries: Sequence[int]) -> list[bytes]:
        """What each entry of a call came to."""
        with torch.no_grad():
            outs = [out.contiguous().cpu() for out in self._call(*some(self._watched, entries))]
        parts = [out.flatten(1).view(torch.uint8).numpy() for out in outs]
        return [b"".join(part[i].tobytes() for part in parts) for i in range(len(entries))]


class Promised(Probe):
    """Of an executor that makes a sample's bits the same in every call: nothing is tried."""

    def __init__(self, network: ScoreNetwork, given: Inputs, sizes: Iterable[int]) -> None:
        self.network, self.sizes = network, set(sizes)
        self.found, self.reason = {}, None
        self._watched = given

    def look(self, size: int) -> None:
        """Nothing depends on it."""

    def settle(self, room: int) -> int:
        return room

    def alike(self, size: int) -> bool:
        return True

    def agrees(self, size: int) -> bool:
        return True

    @property
    def agreeing(self) -> int:
        return sys.maxsize

    def report(self) -> dict[str, Any]:
        return super().report() | {"agree": [], "untried": [], "promised": True}

    def __str__(self) -> str:
        return (
            f"{self._about}\n  the bits of an entry alone  calls of any size: its sums have one order, "
            "and nothing is tried"
        )


def _labels(network: ScoreNetwork, labels: Labels) -> list[Labels]:
    """Of times within a run, where the process has as many."""
    rule = network.parameterisation
    try:
        points = grids.points(network.process, WATCHED + 1, rule.grid)[1:]
        ways = list(pairwise(points))[:WATCHED]
        return [(rule.label_of(s), rule.end_label_of(s, t) or 0.0) for s, t in ways]
    except ValueError:
        return [labels] * WATCHED


def _watched(given: Inputs, labels: Sequence[Labels]) -> Inputs:
    """Normals at different times; of different sizes, so that a scale taken over a batch shows."""
    last = len(given[0]) - 1
    x, label, condition, latent, end = some(given, [0, last, 0])

    def varied(tensor: Tensor) -> Tensor:
        made = tensor.clone()
        for factor, part in zip(SCALES, made.unbind(), strict=True):
            if made.is_floating_point():
                part.mul_(factor)
        return made

    normals = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    x.copy_(normals)
    for told, values in zip((label, end), zip(*labels, strict=True), strict=True):
        if told is not None:
            told.copy_(torch.tensor(values, dtype=torch.float64))
    if isinstance(condition, Mapping):
        condition = {name: varied(tensor) for name, tensor in condition.items()}
    elif condition is not None:
        condition = varied(condition)
    return varied(x), label, condition, None if latent is None else varied(latent), end


def _mixes(name: str) -> str:
    return (
        f"the network {name!r} mixes the samples of a batch: what it makes of one depends on the others "
        f"beside it (batch norm in training mode, a scale or an attention over the batch). {CURE}"
    )


def _forgets(name: str) -> str:
    return (
        f"the network {name!r} makes other values of the same input each time: it draws random numbers "
        f"(dropout in training mode), or keeps something of the calls before (a cache). {CURE}"
    )


def _ranges(sizes: Sequence[int]) -> str:
    """1, 3-5, 8 of [1, 3, 4, 5, 8]."""
    parts: list[list[int]] = []
    for size in sizes:
        if parts and parts[-1][-1] == size - 1:
            parts[-1].append(size)
        else:
            parts.append([size])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)


def first_call(executor: Executor, capacity: Capacity, job: Job) -> tuple[Inputs, Labels] | None:
    """The inputs of a job's first call, and the labels of its last; None where it makes none."""
    own = replace(job, noise=None, brownian=False, on_row=None, on_slots=None)
    room = replace(
        capacity,
        seats=1,
        room=capacity.entries,
        rows=len(job.plan.rows),
        fixed=False,
        denoised=False,
    )
    batch = executor.open(None, room)
    batch.admit(own)
    while batch.live:
        if (given := batch.inputs()) is not None:
            return given, batch.buffers.rows.labels
        batch.step(outs=())
    return None
