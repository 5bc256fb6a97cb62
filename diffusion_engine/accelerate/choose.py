"""Which of a network's fused forms is fastest: measured as it will run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import torch

from ..choices import in_turns
from ..choices.turns import clocked
from ..executors.capture import CudaRecorder, Recorder, Unrecordable
from .replacement import Replacement

BUDGET = 3.0  # seconds of timing, at least one call of each candidate
ROUNDS = 15
LONG = 1.0  # seconds of a call

# name -> (replacements, whether in channels_last)
Candidates = dict[str, tuple[list[Replacement], bool]]
Call = Callable[[], Any]


def candidates(replacements: list[Replacement], device: torch.device) -> Candidates:
    """The forms of a network to time, with all replacements and, on a GPU, without those of each kind.

    On a GPU cuDNN's and torch's own kernels may be the faster ones for a kind.
    """
    sets = {"fused": replacements}
    kinds = sorted({one.kind for one in replacements}) if device.type == "cuda" else []
    for kind in kinds if len(kinds) > 1 else []:
        sets[f"without {kind}"] = [one for one in replacements if one.kind != kind]
    found = {name: (chosen, False) for name, chosen in sets.items()}
    return found | {f"{name}, channels_last": (chosen, True) for name, chosen in sets.items()}


def seconds(
    names: Collection[str], prepare: Callable[[str], Call], call: Call, device: torch.device,
    recorder: Recorder | None = None,
) -> dict[str, float]:  # fmt: skip
    """The median time of a call of each of several forms of a network, one after another in turn.

    prepare   puts a form in place and returns what undoes it
    recorder  records a call as a graph, where the device has graphs: replays are what a GPU takes, eager
              calls what Python takes
    """
    recorder = recorder or CudaRecorder()
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        if recorder.objection(device) is None:
            with suppress(Unrecordable, torch.OutOfMemoryError), torch.inference_mode(False):
                with torch.no_grad():
                    graphs = {name: _recorded(prepare(name), call, recorder) for name in names}
                return _timed(names, lambda name: _once(graphs[name], device))

        def eager(name: str) -> float:
            undo = prepare(name)
            try:
                return _once(call, device)
            finally:
                undo()

        return _timed(names, eager)


def _timed(names: Collection[str], run: Callable[[str], float]) -> dict[str, float]:
    return in_turns(names, run, (1, ROUNDS), BUDGET)


def _recorded(undo: Call, call: Call, recorder: Recorder) -> Call:
    try:
        recorder.warm_up(call)
        graph = recorder.record(call)
    finally:
        undo()
    return partial(_replay, graph.replay, undo)


def _replay(run: Call, kept: Any) -> None:
    """kept  what the graph reads"""
    run()


def _once(run: Call, device: torch.device) -> float:
    """Seconds of a call, on a GPU by its own clock."""
    if device.type != "cuda":
        return clocked(run)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def batch(call: Callable[[int], Call], most: int, device: torch.device) -> int:
    """The largest batch, up to `most`, whose calls are not too long to be repeated.

    call  of a batch
    """
    size, run = 1, call(1)
    run()
    while size < most:
        try:
            if 2 * _once(run, device) > LONG:
                break
            run = call(min(2 * size, most))
            run()
        except (MemoryError, torch.OutOfMemoryError):
            break
        size = min(2 * size, most)
    return size
