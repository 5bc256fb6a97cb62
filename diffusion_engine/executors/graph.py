"""The graph executor: a step of all samples (network, step, next input and label) is one CUDA graph."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from .. import trace
from ..network import ScoreNetwork
from ..ops.registry import resolve
from .base import After, Executor, result, walk
from .capture import Body, CudaRecorder, GraphError, Recorder, Recording
from .lru import Lru
from .packing import Packing, bucket
from .run import Run, Signature
from .space import PACKINGS, Space

BUDGET = 8 << 30


class Captures:
    """Graphs of a network on the buffers of one signature.

    steps  a step by the number of entries of the network's batch; it serves every solver, step count,
           guidance scale and seed, because those are data
    runs   all rows of a run, by the packings of its calls
    """

    def __init__(self, network: ScoreNetwork, signature: Signature, backend: str) -> None:
        self.network = network
        self.space = Space(signature, static=True)
        self.step = resolve("step", backend, self.space.args)
        self.weights = addresses(network)
        self.steps: dict[int, Recording] = {}
        self.runs: dict[tuple[Packing | None, ...], Recording] = {}

    @property
    def bytes(self) -> int:
        graphs = (*self.steps.values(), *self.runs.values())
        return self.space.bytes + sum(graph.bytes for graph in graphs)

    def entries(self, call: Packing) -> int:
        """The bucket of a call."""
        return min(bucket(call.count), self.space.room)

    def advance(self, call: Packing | None) -> None:
        """A row as it is captured: padded entries are computed, and no sample reads them."""
        if call is None:
            self.step(())
        else:
            self.step(self.network(*self.space.bucket(self.entries(call))))

    def replay(self, call: Packing | None) -> None:
        """A row from its graph. Row 0 makes no call and is launched alone."""
        if call is None:
            self.step(())
        else:
            self.steps[self.entries(call)].replay()

    def state(self) -> list[Tensor]:
        """Copies of everything that a step writes, as bits."""
        a = self.space.args
        written = (a.slots, a.row, a.net_in, a.label, a.status, a.denoised)
        return [t.clone().view(torch.uint8) for t in written if t is not None]


class Graph(Executor):
    """Replays captured steps: no Python, no allocation and no launch overhead within a row.

    backend    of the step: "auto", "cpp", "triton" or "cuda"; the reference reads back and cannot be captured
    budget     bytes that buffers and graphs may keep; those of signatures not used for longest go first
    whole_run  capture all rows of a run in one graph: the least work for the host and steady times, for
               a capture of every step count and sequence of batch sizes
    recorder   what records; CUDA graphs when None

    Weights are read where they were: change them in place (`Sampler.update_weights`), which the next
    replay sees. A step is compared with an eager one, bit for bit and on two inputs, before it is trusted.
    """

    def __init__(
        self,
        backend: str = "auto",
        *,
        budget: int = BUDGET,
        whole_run: bool = False,
        recorder: Recorder | None = None,
    ) -> None:
        self.backend, self.whole_run = backend, whole_run
        self._recorder = recorder or CudaRecorder()
        self._kept: Lru[tuple[int, Signature], Captures] = Lru(budget)
        self._lock = threading.Lock()

    def check(self, device: torch.device) -> None:
        if reason := self._recorder.objection(device):
            raise GraphError(f"{reason}; use executor='eager'")

    def execute(self, run: Run, after: After | None = None) -> tuple[Tensor, list[bool]]:
        if self.whole_run and (after is not None or run.noise is not None):
            raise GraphError(
                "whole_run=True has no moment between rows, for on_step, a progress bar or given noise: "
                "leave those out, or use Graph(whole_run=False)"
            )
        with self._lock, torch.no_grad(), _on(run.device):
            kept = self._captures(run)
            if self.whole_run:
                graph = self._whole(kept, run)
                kept.space.load(run)
                trace.traced("replay", graph.replay)()
            else:
                self._capture_steps(kept, run)
                kept.space.load(run)
                walk(run, kept.space, trace.traced("replay", kept.replay), after)
            return result(run, kept.space)

    def recapture(self, network: ScoreNetwork | None = None) -> None:
        """Drops the graphs of a network, or all; the next run captures again."""
        with self._lock:
            for key in self._kept:
                if network is None or key[0] == id(network):
                    self._kept.drop(key)

    def _captures(self, run: Run) -> Captures:
        """The graphs of a run's signature. Raises GraphError where the weights were moved."""
        signature = run.signature.padded()
        key = (id(run.network), signature)
        kept = self._kept.get(key)
        if kept is None:
            self._check_size(signature)
            kept = self._retry(key, lambda: Captures(run.network, signature, self.backend))
            self._keep(key, kept)
        if kept.weights != addresses(run.network):
            raise GraphError(
                "the weights of the network were moved or replaced after the capture, and graphs read them "
                "where they were: call recapture() of the sampler, and from then on change weights in "
                "place with update_weights(state_dict)"
            )
        if len(kept.space.tables) > PACKINGS:  # the space is about to drop them, and runs use them
            kept.runs.clear()
        return kept

    def _check_size(self, signature: Signature) -> None:
        need = Space(replace(signature, device=torch.device("meta")), static=True).bytes
        if need > self._kept.budget:
            raise GraphError(
                f"the buffers of {signature.samples} samples take {need / 2**20:.1f} MiB and the budget is "
                f"{self._kept.budget / 2**20:.1f} MiB: give Graph(budget=...) more, or lower batch_size"
            )

    def _keep(self, key: tuple[int, Signature], kept: Captures) -> None:
        if not self._kept.put(key, kept, kept.bytes):
            raise GraphError(
                f"the graphs of {key[1].samples} samples take {kept.bytes / 2**20:.1f} MiB and the budget is "
                f"{self._kept.budget / 2**20:.1f} MiB: give Graph(budget=...) more, or lower batch_size"
            )

    def _capture_steps(self, kept: Captures, run: Run) -> None:
        """Captures the buckets that a run needs, the largest first: the others fit into its memory."""
        calls = {kept.entries(call): call for call in run.packings if call.count}
        for entries in sorted(calls.keys() - kept.steps.keys(), reverse=True):
            call = calls[entries]

            def prepare(vary: bool, call: Packing = call) -> None:
                kept.space.load(run)
                kept.advance(None)
                kept.space.read(call)
                kept.space.write(call)
                if vary:
                    _vary_inputs(kept.space, run)

            body = _call(kept.advance, call)
            kept.steps[entries] = self._capture(kept, body, prepare)
            self._keep((id(run.network), kept.space.signature), kept)

    def _whole(self, kept: Captures, run: Run) -> Recording:
        calls = tuple(run.calls)
        if calls not in kept.runs:

            def prepare(vary: bool) -> None:
                kept.space.load(run)
                kept.space.args.seed.add_(int(vary))
                if run.x is not None and vary:
                    kept.space.args.slots[0].mul_(-0.5)

            body: Body = lambda: walk(run, kept.space, kept.advance)  # noqa: E731
            kept.runs[calls] = self._capture(kept, body, prepare)
            self._keep((id(run.network), kept.space.signature), kept)
        return kept.runs[calls]

    def _capture(self, kept: Captures, body: Body, prepare: Callable[[bool], None]) -> Recording:
        key = (id(kept.network), kept.space.signature)
        prepare(False)
        self._retry(key, lambda: self._recorder.warm_up(body))
        prepare(False)
        try:
            with trace.span("capture"):
                graph = self._retry(key, lambda: self._recorder.record(body))
        except RuntimeError as error:
            reason = str(error.__context__ or error).strip().splitlines()[0]
            raise GraphError(
                f"the network cannot be captured ({reason}). A captured network may not wait for the device, "
                "copy to the host (item(), tolist(), printing a tensor) or branch on values: change that, or "
                "use executor='eager'"
            ) from error
        for vary in (False, True):
            prepare(vary)
            body()
            want = kept.state()
            prepare(vary)
            graph.replay()
            if not all(map(torch.equal, kept.state(), want)):
                raise GraphError(
                    "a replay of the captured network differs from an eager call: it draws random numbers "
                    "(dropout), branches on values, keeps state between calls or uses kernels that are not "
                    "deterministic. Change that, or use executor='eager'"
                )
        return graph

    def _retry(self, key: tuple[int, Signature], work: Callable[[], Captures | Recording | None]):  # type: ignore[no-untyped-def]
        """Does the work; out of memory, drops all other graphs and tries once more."""
        try:
            return work()
        except torch.OutOfMemoryError:
            self._kept.keep_only(key)
        try:
            return work()
        except torch.OutOfMemoryError as error:
            self._kept.drop(key)
            raise GraphError(
                f"the device ran out of memory while {key[1].samples} samples were captured, even after all "
                f"other graphs were dropped ({str(error).splitlines()[0]}): lower batch_size, or use "
                "executor='eager'"
            ) from error


def _vary_inputs(space: Space, run: Run) -> None:
    """Other inputs than those of the capture: of the other sign, at the last time."""
    args, last = space.args, run.plans[0].rows[-1].call
    assert args.net_in is not None and args.label is not None and last is not None
    args.net_in.mul_(-0.5)
    args.label.fill_(last.label)


def _call(advance: Callable[[Packing | None], None], call: Packing) -> Body:
    return lambda: advance(call)


def _on(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def addresses(network: ScoreNetwork) -> tuple[int, ...]:
    """Where the weights lie."""
    module = network.module
    tensors: Iterable[Tensor] = ()
    if isinstance(module, nn.Module):
        tensors = (*module.parameters(), *module.buffers())
    return tuple(t.data_ptr() for t in tensors)
