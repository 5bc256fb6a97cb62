"""`Shown`: what was recorded of a network, as `print` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from ..networks.network import ScoreNetwork
from .recording import Recording
from .stages import differentiates

RUNS = 5  # that are timed
WIDTH = 40  # of a name


@dataclass(frozen=True)
class Line:
    """An operation of a call.

    name     the operation's, as recorded
    torch    whether torch does it, called back
    seconds  of one call
    share    of the whole call's
    """

    name: str
    torch: bool
    seconds: float
    share: float


class Shown:
    """A network's recordings, one for each kind of condition; `print` shows the operations of the largest
    call that was made, timed now.

    network     what runs
    recordings  empty before the first run
    dtype       of the products, bfloat16 or, as where it is None, float32
    reason      why it is float32 though bf16 was asked for
    """

    def __init__(
        self,
        network: ScoreNetwork,
        recordings: Sequence[Recording],
        dtype: torch.dtype | None = None,
        reason: str | None = None,
    ) -> None:
        self.network, self.recordings = network, list(recordings)
        self.dtype, self.reason = dtype, reason

    @property
    def threads(self) -> dict[int, int]:
        """By the entries of a call."""
        return {n: t for one in self.recordings for n, t in sorted(one.threads.items())}

    @property
    def bytes(self) -> int:
        """Of packed weights."""
        return sum(one.bytes for one in self.recordings)

    def lines(self, recording: Recording, entries: int) -> list[Line]:
        """The operations of a call of so many entries, each timed in a few calls that are made now."""
        program, given = recording.program(entries), recording.inputs(entries)
        program(given)
        program.native.profile(True)
        tables: list[list[dict[str, Any]]] = []
        for _ in range(RUNS):
            program.native.reset()
            program(given)
            tables.append(program.native.table())
        rows = tables[0]
        seconds = [median(row["ns"] for row in same) / 1e9 for same in zip(*tables, strict=True)]
        whole = sum(seconds) or 1.0
        return [
            Line(row["name"], row["call"], spent, spent / whole)
            for row, spent in zip(rows, seconds, strict=True)
        ]

    def __str__(self) -> str:
        size = "x".join(map(str, self.network.shape))
        dtype = "bf16" if self.dtype == torch.bfloat16 else "float32"
        said = f"{self.network.name}, {size} in {dtype} on the CPU"
        if self.reason:
            said += f"\n  bf16 is too coarse: {self.reason}"
        if differentiates(self.network):
            return f"{said}\n  not recorded: it differentiates in its forward, and torch calls it"
        if not self.recordings:
            return f"{said}\n  nothing is recorded before the first run"
        return "\n".join([said, *(line for one in self.recordings for line in self._of(one))])

    def _of(self, recording: Recording) -> list[str]:
        from ..backends.native import loaded

        sizes = sorted(recording.sizes)
        if not sizes:
            return ["  recorded, and never called"]
        entries = sizes[-1]
        found = self.lines(recording, entries)
        called = [line for line in found if line.torch]
        whole = sum(line.seconds for line in found)
        on = "/".join([loaded("_cpu").isa(), *filter(None, [recording.half])])
        made = [
            f"  {len(found)} operations on {on}, {len(called)} of them done by torch "
            f"(marked *); {recording.bytes / 2**20:.1f} MiB of weights",
            *(f"  {self._size(recording, size)}" for size in sizes),
            f"  a call of {entries}, {whole * 1e3:.3f} ms:",
        ]
        for line in found:
            mark = "*" if line.torch else " "
            name = line.name[:WIDTH]
            made.append(f"  {mark} {name:<{WIDTH}} {line.seconds * 1e6:9.1f} us {line.share:6.1%}")
        return made

    def _size(self, recording: Recording, entries: int) -> str:
        threads = recording.threads.get(entries, 1)
        said = f"calls of {entries}: {threads} thread{'s' * (threads > 1)}"
        times = recording.times.get(entries)
        if times:
            said += " (" + ", ".join(f"{n}: {s * 1e3:.3f} ms" for n, s in times.items()) + ")"
        return f"{said}, {recording.sizes[entries] / 2**20:.1f} MiB of memory"
