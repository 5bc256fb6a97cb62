"""The graph executor: a step of all samples (network, step, next input and label) is one CUDA graph."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from .. import checks, trace
from ..networks.compiled import Compiled
from ..networks.contents import Contents
from ..networks.network import ScoreNetwork
from ..networks.wrapper import unwrapped
from ..ops.registry import resolve
from .base import After, Executor, result, walk
from .capture import Body, CudaRecorder, GraphError, Recorder, Recording, Unrecordable
from .lru import Lru
from .packing import Packing, bucket
from .run import Run, Signature
from .space import Space

BUDGET = 8 << 30

Made = TypeVar("Made")
# Puts the buffers in front of what is captured; True: with other inputs than those of the capture.
Prepare = Callable[[bool], None]


class Captures:
    """Graphs of a network on the buffers of one signature.

    steps  a step by the number of entries of the network's batch; it serves every solver, step count,
           guidance scale and seed, because those are data
    runs   all rows of a run, by the packings of its calls
    """

    def __init__(self, network: ScoreNetwork, signature: Signature, backend: str) -> None:
        self.key = (network, signature)
        self.network = network
        self.space = Space(signature, static=True)
        paths = self.space.paths
        self._step = resolve("step", backend, self.space.args)
        self._draw = None if paths is None else resolve("brownian", backend, paths)
        latents = self.space.latents
        self._fill = None
        if latents is not None:
            self._fill = latents.filler(resolve("noise", backend, latents.args))
        self.weights = weights_of(network)
        self.contents: Contents | None = None  # of the module when it was captured last
        self.steps: dict[int, Recording] = {}
        self.runs: dict[tuple[Packing | None, ...], Recording] = {}

    @property
    def bytes(self) -> int:
        graphs = (*self.steps.values(), *self.runs.values())
        return self.space.bytes + sum(graph.bytes for graph in graphs)

    def outdated(self) -> bool:
        """Whether the module computes something else now, its weights being where they were."""
        changed = self.contents is not None and not self.contents.same()
        return changed and self.weights == weights_of(self.network)

    def entries(self, call: Packing) -> int:
        """The bucket of a call."""
        return min(bucket(call.count), self.space.room)

    def step(self, outs: Sequence[Tensor]) -> None:
        """The step, its normals filled in before where they are those of Brownian paths."""
        if self._draw is not None:
            self._draw()
        self._step(outs)

    def advance(self, call: Packing | None) -> None:
        """A row as it is captured: padded entries are computed, and no sample reads them."""
        if call is None or not call.count:
            self.step(())
        else:
            count = self.entries(call)
            if self._fill is not None:
                self._fill(count)
            self.step(self.network(*self.space.bucket(count)))

    def replay(self, call: Packing | None) -> None:
        """A row from its graph. Rows without a call, as row 0, are launched alone."""
        if call is None or not call.count:
            self.step(())
        else:
            self.steps[self.entries(call)].replay()

    def state(self) -> list[Tensor]:
        """Copies of everything that a step writes, as bytes."""
        a = self.space.args
        written = (a.slots, a.row, a.net_in, a.label, a.status, a.denoised)
        return [t.contiguous().view(torch.uint8).clone() for t in written if t is not None]


class Graph(Executor):
    """Replays captured steps: within a row there is no Python, no allocation and no launch but one.

    backend    of the step: "auto", "cpp", "triton" or "cuda"; the reference reads back and cannot be captured
    budget     bytes that buffers and graphs may keep, as far as torch's allocator tells them; those of
               signatures not used for longest go first
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
        self.backend, self.whole_run = backend, checks.flag("whole_run", whole_run)
        budget = checks.whole("budget", budget, 0, "bytes that buffers and graphs may keep")
        self.between_rows = not whole_run
        self._recorder = recorder or CudaRecorder()
        self._kept: Lru[tuple[ScoreNetwork, Signature], Captures] = Lru(budget)
        self._lock = threading.RLock()
        self._busy = False

    def __reduce__(self) -> tuple:
        """A copy, here or in another process, captures anew."""
        budget, whole_run = self._kept.budget, self.whole_run
        made = partial(Graph, budget=budget, whole_run=whole_run, recorder=self._recorder)
        return made, (self.backend,)

    def check(self, device: torch.device) -> None:
        if reason := self._recorder.objection(device):
            raise GraphError(f"{reason}; use executor='eager'")

    def execute(self, run: Run, after: After | None = None) -> tuple[Tensor, list[bool]]:
        self._check_run(run, after)
        with self._alone(), torch.inference_mode(False), torch.no_grad(), _on(run.device):
            captures = self._captures(run)
            if self.whole_run:
                graph = self._whole(captures, run)
                captures.space.load(run)
                trace.traced("replay", graph.replay)()
            else:
                self._capture_steps(captures, run)
                captures.space.load(run)
                walk(run, captures.space, trace.traced("replay", captures.replay), after)
            self._keep(captures)
            return result(run, captures.space)

    def forget(self, network: ScoreNetwork) -> None:
        self.recapture(network)

    def recapture(self, network: ScoreNetwork | None = None) -> None:
        """Drops the graphs of a network, or all; the next run captures again."""
        with self._alone():
            for key in self._kept:
                if network is None or key[0] is network:
                    self._kept.take(key)

    def _check_run(self, run: Run, after: After | None) -> None:
        if self.whole_run and (after is not None or run.noise is not None):
            raise GraphError(
                "whole_run=True has no moment between rows, for on_step, progress or given noise: leave "
                "those out, or use Graph(whole_run=False)"
            )
        if torch.is_autocast_enabled(run.device.type):
            raise GraphError(
                "autocast is on, whose casts of the weights do not outlive it while a graph would read them: "
                "give the Sampler dtype= instead, or use executor='eager'"
            )
        if self.backend == "torch" or run.state_dtype == torch.float64:
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

    def _captures(self, run: Run) -> Captures:
        """The graphs of a run's signature. Raises GraphError where the weights were moved."""
        key = (run.network, run.signature.padded())
        captures = self._kept.get(key)
        if captures is not None and captures.outdated():
            self._kept.take(key)
            captures = None
        if captures is None:
            self._check_size(key[1])
            captures = self._retry(key, partial(Captures, *key, self.backend))
            self._keep(captures)
        if captures.weights != weights_of(run.network):
            raise GraphError(
                "the weights of the network were moved or replaced after the capture, or its training mode "
                "changed, and graphs read weights where they were: call recapture() of the sampler, and from "
                "then on change weights in place with update_weights(state_dict)"
            )
        if captures.space.make_room(run):
            captures.runs.clear()  # they read the tables that are gone
        return captures

    def _check_size(self, signature: Signature) -> None:
        need = Space(replace(signature, device=torch.device("meta")), static=True).bytes
        if need > self._kept.budget:
            raise GraphError(_too_large("buffers", signature.samples, need, self._kept.budget))

    def _keep(self, captures: Captures, graph: Recording | None = None) -> None:
        """Counts what the captures take now. Of a signature that alone is over the budget, captured runs
        other than `graph` go first."""
        for calls in list(captures.runs):
            if captures.bytes <= self._kept.budget:
                break
            if captures.runs[calls] is not graph:
                del captures.runs[calls]
        size, samples = captures.bytes, captures.space.signature.samples
        if not self._kept.put(captures.key, captures, size):
            raise GraphError(_too_large("graphs", samples, size, self._kept.budget))

    def _capture_steps(self, captures: Captures, run: Run) -> None:
        """Captures the buckets that a run needs, the largest first: the others fit into its memory."""
        calls = {captures.entries(call): call for call in run.packings if call.count}
        for entries in sorted(calls.keys() - captures.steps.keys(), reverse=True):
            call, space = calls[entries], captures.space

            def prepare(vary: bool, call: Packing = call, space: Space = space) -> None:
                space.load(run)
                space.write(call)
                captures.advance(None)
                space.read(call)
                if vary:
                    _vary_inputs(space, run)

            captures.steps[entries] = self._capture(
                captures, partial(captures.advance, call), prepare
            )
            self._keep(captures)

    def _whole(self, captures: Captures, run: Run) -> Recording:
        calls = run.calls
        if calls not in captures.runs:

            def prepare(vary: bool) -> None:
                captures.space.load(run)
                captures.space.args.seed.add_(int(vary))
                if run.x is not None and vary:
                    captures.space.args.slots[0].mul_(-0.5)

            body = partial(walk, run, captures.space, captures.advance)
            captures.runs[calls] = self._capture(captures, body, prepare)
            self._keep(captures, captures.runs[calls])
        return captures.runs[calls]

    def _capture(self, captures: Captures, body: Body, prepare: Prepare) -> Recording:
        """Records the work and holds it against the work itself. Raises GraphError with the reason."""
        try:
            graph = self._retry(captures.key, partial(self._recorded, captures, body, prepare))
            captures.contents = contents_of(captures.network)
            return graph
        except Unrecordable as error:
            raise GraphError(
                f"the network cannot be captured ({error}). A captured network may not wait for the device, "
                "copy to the host (item(), tolist(), printing a tensor) or branch on values: change that, or "
                "use executor='eager'"
            ) from error

    def _recorded(self, captures: Captures, body: Body, prepare: Prepare) -> Recording:
        prepare(False)
        self._recorder.warm_up(body)
        prepare(False)
        with trace.span("capture"):
            graph = self._recorder.record(body)
        for vary in (False, True):
            prepare(vary)
            body()
            want = captures.state()
            prepare(vary)
            graph.replay()
            if not all(map(torch.equal, captures.state(), want)):
                raise GraphError(
                    "a replay of the captured network differs from an eager call: it draws random numbers "
                    "(dropout), branches on values, keeps state between calls or uses kernels that are not "
                    "deterministic. Change that, or use executor='eager'"
                )
        return graph

    def _retry(self, key: tuple[ScoreNetwork, Signature], work: Callable[[], Made]) -> Made:
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
                f"the device ran out of memory while {key[1].samples} samples were captured, even after all "
                f"other graphs were dropped ({str(error).splitlines()[0]}): lower batch_size, or use "
                "executor='eager'"
            ) from error


def _too_large(what: str, samples: int, need: int, budget: int) -> str:
    return (
        f"the {what} of {samples} samples take {need / 2**20:.1f} MiB and the budget is "
        f"{budget / 2**20:.1f} MiB: give Graph(budget=...) more, or lower batch_size"
    )


def _vary_inputs(space: Space, run: Run) -> None:
    """Other inputs than those of the capture: of the other sign, at the last time."""
    args, last = space.args, run.plans[0].rows[-1].call
    assert args.net_in is not None and args.label is not None and last is not None
    args.net_in.mul_(-0.5)
    args.label.fill_(last.label)


def _on(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def contents_of(network: ScoreNetwork) -> Contents | None:
    """What the user's module is made of: a change of it is one that a graph does not see."""
    module = unwrapped(network.module, Compiled)
    return Contents.of(module) if isinstance(module, nn.Module) else None


def weights_of(network: ScoreNetwork) -> tuple[int, ...]:
    """What a captured network depends on beside its input: where the weights lie, and training mode."""
    module = network.module
    if not isinstance(module, nn.Module):
        return ()
    tensors = (*module.parameters(), *module.buffers())
    return (sum(m.training for m in module.modules()), *(t.data_ptr() for t in tensors))
