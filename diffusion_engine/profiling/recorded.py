"""The operations of a network that is replayed on the CPU, which torch's profiler does not see."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from .classes import COPIES, ELEMENTWISE, op_class
from .report import Op

if TYPE_CHECKING:
    from ..sampler.sampler import Sampler

MOVES = {"copy", "pad", "upsample", "embedding"}


def recorded_ops(sampler: Sampler, calls: float) -> tuple[list[Op], Counter[str]] | None:
    """The operations, and how often each class of them runs, as `host_ops` has them; None where the network
    is not replayed.

    calls  of the network, in a run
    """
    shown = sampler.recording
    if shown is None or not shown.recordings:
        return None
    recording = shown.recordings[-1]
    seconds: defaultdict[str, float] = defaultdict(float)
    times: Counter[str] = Counter()
    for line in shown.lines(recording, max(recording.sizes)):
        seconds[line.name] += line.seconds
        times[line.name] += 1
    ops = [
        Op(name, kind(name), round(times[name] * calls), spent * calls)
        for name, spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]
    counted: Counter[str] = Counter()
    for op in ops:
        counted[op.kind] += op.calls
    return ops, counted


def kind(name: str) -> str:
    """The class of a recorded operation."""
    if name.startswith("torch "):
        return op_class(f"aten::{name.removeprefix('torch ')}")
    first = name.partition(" ")[0]
    if first in MOVES:
        return COPIES
    if first in ("map", "reduce"):
        return ELEMENTWISE
    return op_class(first)
