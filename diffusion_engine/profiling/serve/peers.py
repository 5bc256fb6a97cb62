"""What an engine is measured against: each request by itself, and samples of one kind in lockstep."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ...networks.network import ScoreNetwork
from ...sampler.progress import Progress
from ...sampler.sampler import Sampler
from .drive import Course, Timing
from .load import Arrival, Kind


class Peers:
    """Samplers of a mix's kinds over one placed network.

    capacity  samples of a batch
    how       the arguments of Sampler that say where and how the network runs
    """

    def __init__(
        self, network: ScoreNetwork, mix: Sequence[Kind], capacity: int, how: Mapping[str, Any]
    ) -> None:
        self.capacity = capacity
        self._of: dict[int, Sampler] = {}  # by the kind's identity: its options may be a dict
        for kind in mix:
            asked = kind.spec.arguments()
            dtype = asked.pop("dtype") or how.get("dtype")
            options = kind.spec.solver.options
            self._of[id(kind)] = Sampler(
                network,
                kind.spec.solver.name,
                **asked,
                **options,
                **{**how, "dtype": dtype},
                batch_size=capacity,
            )

    def evaluations(self, kind: Kind) -> int:
        """Entries of network calls that a sample takes."""
        return self._of[id(kind)].plan(kind.guidance).evaluations

    def alone(self, load: Sequence[Arrival]) -> list[tuple[float | None, float]]:
        """Seconds to the first preview and to the end of each request, by itself."""
        return [self._alone(one) for one in load]

    def _alone(self, one: Arrival) -> tuple[float | None, float]:
        shown: list[float] = []
        began = time.perf_counter()

        def show(progress: Progress) -> None:
            if not shown and progress.denoised is not None:
                progress.denoised.clone()
                shown.append(time.perf_counter() - began)

        self._run(one.kind, **one.request, on_step=show if one.kind.preview else None)
        return shown[0] if shown else None, time.perf_counter() - began

    def lockstep(self, load: Sequence[Arrival]) -> float:
        """Seconds in which the load's samples are made in full batches of one kind in lockstep."""
        each: dict[int, float] = {}
        for one in load:
            if id(one.kind) not in each:
                given = one.request | {"seeds": list(range(self.capacity))}
                if one.classes is not None:
                    given["condition"] = one.classes[0]
                began = time.perf_counter()
                self._run(one.kind, **given)
                each[id(one.kind)] = (time.perf_counter() - began) / self.capacity
        return sum(each[id(one.kind)] * len(one.seeds) for one in load)

    def _run(self, kind: Kind, **request: Any) -> None:
        asked = {name: value for name, value in kind.spec.request().items() if value}
        self._of[id(kind)].sample(progress=False, **asked | request)


def in_turn(load: Sequence[Arrival], took: Sequence[tuple[float | None, float]]) -> Course:
    """The course of a load whose requests are served one after another, first come first, when each takes
    so long by itself (Lindley's recursion): nobody has to wait for it in earnest."""
    free, timings = 0.0, []
    for one, (preview, whole) in zip(load, took, strict=True):
        began = max(free, one.at)
        free = began + whole
        shown = None if preview is None else began + preview
        timings.append(Timing(one.at, len(one.seeds), shown, free))
    return Course(timings)
