"""The graph executor: a step of all samples (network, step, next input and label) is one CUDA graph."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch

from .. import checks, trace
from ..networks.network import ScoreNetwork
from ..ops.registry import known
from .base import After, Executor
from .batch import Batch, plain
from .buffers import Buffers
from .capacity import Capacity
from .capture import Body, CudaRecorder, GraphError, Recorder, Recording, Unrecordable
from .lru import Lru
from .replays import Replays, Written, contents_of, weights_of
from .stages import Stages

BUDGET = 8 << 30

Made = TypeVar("Made")
Key = tuple[ScoreNetwork, Capacity]


class Graph(Executor):
    """Replays captured steps: within a row there is no Python, no allocation and no launch but one.

    backend    of the step: "auto", "cpp", "triton" or "cuda"; the reference reads back and cannot be captured
    budget     bytes that buffers and graphs may keep, as far as torch's allocator tells them; those of
               capacities not used for longest go first
    whole_run  capture all rows of a run in one graph: the least work for the host and steady times, for
               a capture of every step count and sequence of batch sizes
    recorder   what records; CUDA graphs when None

    Weights are read where they were: change them in place (`Sampler.update_weights`), which the next
    replay sees. Moved ones are found in a torch.nn.Module, and one whose hooks, submodules or attributes were
    changed is captured anew; of another callable nothing is known. A step is
    compared with an eager one, bit for bit and on two inputs, before it is trusted.
    """

    def __init__(
        self,
        backend: str = "auto",
        *,
        budget: int = BUDGET,
        whole_run: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self.backend, self.whole_run = known(backend), checks.flag("whole_run", whole_run)
        budget = checks.whole("budget", budget, 0, "bytes that buffers and graphs may keep")
        self.between_rows = not whole_run
        self._recorder = recorder or CudaRecorder()
        self._kept: Lru[Key, Batch] = Lru(budget)
        self._lock = threading.RLock()
        self._busy = False

    def __reduce__(self) -> tuple:
        """A copy, here or in another process, captures anew."""
        budget, whole_run = self._kept.budget, self.whole_run
        made = partial(Graph, budget=budget, whole_run=whole_run, recorder=self._recorder)
        return made, (self.backend,)

    def objection(self, device: torch.device) -> str | None:
        reason = self._recorder.objection(device)
        return reason and f"{reason}; use executor='eager'"

    def captures(self, device: torch.device) -> bool:
        return True

    def forget(self, network: ScoreNetwork) -> None:
        self.recapture(network)

    def recapture(self, network: ScoreNetwork | None = None) -> None:
        """Drops the graphs of a network, or all; the next run captures again."""
        with self._alone():
            for key in self._kept:
                if network is None or key[0] is network:
                    self._kept.take(key)

    def open(self, network: ScoreNetwork | None, capacity: Capacity) -> Batch:
        self._check_capacity(capacity)
        with plain(), _on(capacity.device):
            if network is None:  # there is nothing to capture
                return Batch(capacity, partial(Stages, None, backend=self.backend))
            return Batch(capacity, partial(Replays, network, capturer=self))

    @contextmanager
    def batch(self, network: ScoreNetwork, capacity: Capacity) -> Iterator[Batch]:
        with self._alone(), plain(), _on(capacity.device):
            batch = self._current(network, capacity.padded())
            try:
                yield batch
            finally:
                batch.clear()

    def finish(self, batch: Batch, after: After | None = None) -> None:
        if not self.whole_run or not isinstance(batch.stages, Replays):
            super().finish(batch, after)
            return
        if after is not None or batch.attended:
            raise GraphError(
                "whole_run=True has no moment between rows, for on_step, progress, given noise or a recorded "
                "trajectory: leave those out, or use Graph(whole_run=False)"
            )
        graph = self._whole(batch, batch.stages)
        trace.traced("replay", graph.replay)()

    def capture(self, stages: Replays, body: Body, written: Written) -> Recording:
        """Records the work of a batch and holds it against the work itself. Raises GraphError."""
        try:
            with _on(stages.buffers.capacity.device):  # a batch of the caller's own steps anywhere
                graph = self._retry(stages.key, partial(self._recorded, body, written))
        except Unrecordable as error:
            raise GraphError(
                f"the network cannot be captured ({error}). A captured network may not wait for the device, "
                "copy to the host (item(), tolist(), printing a tensor) or branch on values: change that, or "
                "use executor='eager'"
            ) from error
        finally:
            written.restore()
        stages.contents = contents_of(stages.network)
        return graph

    def count(self, stages: Replays) -> None:
        """Counts what was captured for a batch that is kept."""
        batch = self._kept.get(stages.key)
        if batch is not None and batch.stages is stages:
            self._keep(batch)

    def _whole(self, batch: Batch, stages: Replays) -> Recording:
        """The graph of all rows that the seats have before them, who are then at their ends."""
        mark, calls = batch.mark(), batch.coming()
        step = batch.buffers.step

        def body() -> None:
            batch.rewind(mark)
            Executor.finish(self, batch)

        def vary() -> None:
            step.seed.add_(1)
            step.slots[0].mul_(-0.5)  # of a given x; a drawn one is written before it is read

        if calls not in stages.runs:
            stages.eager = True
            try:
                stages.runs[calls] = self.capture(stages, body, Written(batch.buffers, vary))
            finally:
                stages.eager = False
                batch.rewind(mark)
            self._keep(batch, stages.runs[calls])
        batch.end(calls[-1])
        return stages.runs[calls]

    def _check_capacity(self, capacity: Capacity) -> None:
        if torch.is_autocast_enabled(capacity.device.type):
            raise GraphError(
                "autocast is on, whose casts of the weights do not outlive it while a graph would read them: "
                "give the Sampler dtype= instead, or use executor='eager'"
            )
        if self.backend == "torch" or capacity.state_dtype == torch.float64:
            raise GraphError(
                "the reference step, which alone runs float64, reads values back and cannot be captured: use "
                "float32 and another backend, or executor='eager'"
            )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time: its buffers are those of all. Other threads wait."""
        with self._lock:
            if self._busy:
                raise GraphError(
                    "a callback or the network itself samples with the executor that runs it, whose buffers "
                    "are in use: give that sampler an executor of its own"
                )
            self._busy = True
            try:
                yield
            finally:
                self._busy = False

    def _current(self, network: ScoreNetwork, capacity: Capacity) -> Batch:
        """The batch of a capacity. Raises GraphError where the weights were moved."""
        self._check_capacity(capacity)
        key = (network, capacity)
        batch = self._kept.get(key)
        if batch is not None and _stages(batch).outdated():
            self._kept.take(key)
            batch = None
        if batch is None:
            self._check_size(capacity)
            batch = self._retry(key, partial(self.open, network, capacity))
            self._keep(batch)
        if _stages(batch).weights != weights_of(network):
            raise GraphError(
                "the weights of the network were moved or replaced after the capture, or its training mode "
                "changed, and graphs read weights where they were: call recapture() of the sampler, and from "
                "then on change weights in place with update_weights(state_dict)"
            )
        batch.bind()
        return batch

    def _check_size(self, capacity: Capacity) -> None:
        need = Buffers(replace(capacity, device=torch.device("meta"))).bytes
        if need > self._kept.budget:
            raise GraphError(_too_large("buffers", capacity.seats, need, self._kept.budget))

    def _keep(self, batch: Batch, graph: Recording | None = None) -> None:
        """Counts what the batch takes now. Of one that alone is over the budget, captured runs
        other than `graph` go first."""
        stages = _stages(batch)
        for calls in list(stages.runs):
            if batch.bytes <= self._kept.budget:
                break
            if stages.runs[calls] is not graph:
                del stages.runs[calls]
        size, samples = batch.bytes, batch.capacity.seats
        if not self._kept.put(stages.key, batch, size):
            raise GraphError(_too_large("graphs", samples, size, self._kept.budget))

    def _recorded(self, body: Body, written: Written) -> Recording:
        written.restore()
        self._recorder.warm_up(body)
        written.restore()
        with trace.span("capture"):
            graph = self._recorder.record(body)
        for vary in (False, True):
            written.restore(vary)
            body()
            want = written.now()
            written.restore(vary)
            graph.replay()
            if not all(map(torch.equal, written.now(), want)):
                raise GraphError(
                    "a replay of the captured network differs from an eager call: it draws random numbers "
                    "(dropout), branches on values, keeps state between calls or uses kernels that are not "
                    "deterministic. Change that, or use executor='eager'"
                )
        return graph

    def _retry(self, key: Key, work: Callable[[], Made]) -> Made:
        """Does the work; out of memory, drops all other graphs and tries once more."""
        try:
            return work()
        except torch.OutOfMemoryError:
            self._kept.keep_only(key)
        try:
            return work()
        except torch.OutOfMemoryError as error:
            self._kept.take(key)
            raise GraphError(
                f"the device ran out of memory while {key[1].seats} samples were captured, even after all "
                f"other graphs were dropped ({str(error).splitlines()[0]}): lower batch_size, or use "
                "executor='eager'"
            ) from error


def _stages(batch: Batch) -> Replays:
    assert isinstance(batch.stages, Replays)
    return batch.stages


def _too_large(what: str, samples: int, need: int, budget: int) -> str:
    return (
        f"the {what} of {samples} samples take {need / 2**20:.1f} MiB and the budget is "
        f"{budget / 2**20:.1f} MiB: give Graph(budget=...) more, or lower batch_size"
    )


def _on(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
