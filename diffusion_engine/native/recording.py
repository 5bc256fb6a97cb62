"""`Recording`: a network as the native executor runs it, at any batch size."""

from __future__ import annotations

import threading
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from ..choices import Kept, fewest, in_turns
from ..choices.turns import clocked, is_count
from ..executors.buffers import Inputs
from ..executors.lru import Lru
from ..networks.network import ScoreNetwork
from ..networks.watched import Watched
from ..networks.wrapper import unwrapped
from . import held, reference
from .called import MEET, SCALES, Called, examples, taken_apart
from .export import structure
from .fitness import unfit
from .lower import UNFIT, Refused
from .memory import given_back
from .packed import Packed
from .pools import Pools
from .program import Alone, Program
from .record import Graph, Recorded

LONG = 0.1  # seconds of a call that takes all threads: to measure other numbers would take seconds
BEFORE = 1 << 28  # bytes of packed weights that the network had before: adapters take turns


class Recording:
    """A network's graph and its packed weights. Raises Refused where it cannot be recorded.

    network  in eval mode, on the CPU in float32
    given    inputs of a call, of any number of entries
    pools    threads that replay it
    half     the instructions by which its products are done in bf16, as _cpu.bf16() names them; "" in float32
    sizes    bytes of a program's memory, by the number of entries
    threads  that replay, and seconds of a call by their number, by the number of entries: what was measured

    One thread at a time makes programs and looks at the weights: `lock`.
    """

    def __init__(self, network: ScoreNetwork, given: Inputs, pools: Pools, half: str = "") -> None:
        self.network, self.pools, self.half = network, pools, half
        self.lock = threading.RLock()
        if objection := unfit(network):
            raise Refused(objection)
        self._called = Called(network, given)
        traced = Called(network.with_module(structure(network.module)), given)
        self._example = [t[:1].clone() for t in taken_apart(given)]
        self._graph = Graph(traced, self.inputs(2))
        self._watched = Watched(network.module, self._graph.constants())
        self.same, self.written = self._watched.same, self._watched.written
        self.packed = Packed(self._watched.known(), half)
        self._kept: Lru[tuple, Packed] = Lru(BEFORE)
        self._choices = {"": self._threads_of(), half: self._threads_of(*filter(None, [half]))}
        self.sizes: dict[int, int] = {}
        self.threads: dict[int, int] = {}
        self.times: dict[int, dict[int, float]] = {}
        self._exact: bool | None = None

    def _threads_of(self, *half: str) -> Kept:
        return Kept("threads", [self._graph.text, self.packed.known[0], *half], is_count)

    @property
    def bytes(self) -> int:
        """Of packed weights."""
        return self.packed.bytes + self._kept.bytes

    def follow(self) -> None:
        """Takes over values of weights that have changed, by whatever way."""
        with self.lock:
            # On the threads of the calls that follow: OpenMP's would spin beside them for a while.
            pool = self.pools.of(max(self.threads.values(), default=1))
            known, before = self._watched.known(pool), self.packed
            if known == before.known:
                return
            self.packed = self._kept.take(known) or Packed(known, self.half)
            self._kept.put(before.known, before, before.bytes)

    def in_float32(self) -> None:
        """From now on."""
        with self.lock:
            if self.half:
                self.half, self.packed, self._kept = "", Packed(self.packed.known), Lru(BEFORE)
                self.sizes, self.threads, self.times, self._exact = {}, {}, {}, None

    def release(self) -> None:
        """Lets go of packed weights, which the next program packs anew."""
        with self.lock:
            self.packed, self._kept = Packed(self.packed.known, self.half), Lru(BEFORE)

    @property
    def exact(self) -> bool:
        """Whether a sample's bits are its own in every call: all of it is done by tasks that see to that, and
        entries do not read one another, nor their place."""
        with self.lock:
            if self._exact is None:
                alone, met = self.program(1), self.program(MEET)
                fixed = self._graph.dynamic and met.exact
                self._exact = fixed and self._independent(alone, met)
            return self._exact

    def _independent(self, alone: Program, met: Program) -> bool:
        given = self.inputs(MEET)
        together = [out.clone() for out in met(given)]
        return all(
            torch.equal(out, other[i : i + 1])
            for i in range(MEET)
            for out, other in zip(alone([t[i : i + 1] for t in given]), together, strict=True)
        )

    def program(self, batch: int) -> Program:
        """A call of `batch` entries on memory of its own, held against the module itself, on the number of
        threads that was measured to be the fastest."""
        with self.lock:
            recorded = self._recorded(batch)
            if recorded is None:
                return Alone(self.program(2))
            if self.half and not self.packed.held:
                self._settle()
            given, threads = self.inputs(batch), self._known(batch)
            # Of what calls before left in the module, too; other sizes have the same operations.
            scales = SCALES[:1] if self.packed.held and self._graph.dynamic else SCALES
            calls = [[scale * given[0], *given[1:]] for scale in scales]
            wanted = [
                self._wanted(call) for call in calls
            ]  # what that takes is free before packing
            given_back()
            made = self._built(recorded, self.pools.of(threads or self.pools.candidates(batch)[-1]))
            seconds = [
                clocked(partial(self._compare, recorded, made, call, want))
                for call, want in zip(calls, wanted, strict=True)
            ]
            self.packed.held = True
            self.sizes = {**self.sizes, batch: made.bytes}
            if threads or min(seconds) > LONG:
                self.threads = {**self.threads, batch: made.threads}
                return made
            return self._fastest(made, recorded, given)

    def _recorded(self, batch: int) -> Recorded | None:
        """The operations of a call, which are those of all other sizes; None of one entry, where they are
        not: fusing may find more where dimensions are 1. Raises Refused."""
        made = self._operations(batch)
        if not self._graph.dynamic or batch == 2 or self._like == made.arithmetic():
            return made
        if batch > 1:
            raise Refused(f"it does something else in a call of {batch} entries than in one of 2")
        return None

    @cached_property
    def _like(self) -> list[tuple]:
        return self._operations(2).arithmetic()

    def _operations(self, batch: int) -> Recorded:
        try:
            return self._graph.at(batch, self.packed.joint, self.packed.folded)
        except UNFIT as error:
            raise Refused(f"its operations cannot be recorded ({error!r})") from error

    def _built(self, recorded: Recorded, pool: Any) -> Program:
        try:
            return Program(recorded, pool, self.packed.weights)
        except UNFIT as error:  # a dtype, or an expression, that kernels do not have
            raise Refused(f"its operations cannot be made natively ({error})") from error

    def _known(self, batch: int) -> int | None:
        """How many threads a call has; None where that is to be measured."""
        counts = self.pools.candidates(batch)
        known = counts[0]
        if len(counts) > 1:
            known = self.threads.get(batch) or self._choices[self.half].get(batch)
        if known not in counts:
            return None
        self.threads = {**self.threads, batch: known}
        return known

    def _fastest(self, made: Program, recorded: Recorded, given: list[Tensor]) -> Program:
        """The program on the number of threads that is measured to be the fastest, of those that need not be
        more."""
        batch = len(given[0])
        counts = self.pools.candidates(batch)
        made_of = {made.threads: made}
        for threads in counts[:-1]:
            made_of[threads] = Program(recorded, self.pools.of(threads), self.packed.weights, made)
        for program in made_of.values():
            program(given)
        self.times[batch] = in_turns(made_of, lambda n: clocked(partial(made_of[n], given)))
        threads = fewest(self.times[batch])
        self.threads = {**self.threads, batch: threads}
        self._choices[self.half].put(batch, threads)
        return made_of[threads]

    def _wanted(self, given: list[Tensor]) -> list[Tensor]:
        """What the module makes of a call."""
        with torch.no_grad():
            return [out.clone() for out in self._called(given)]

    def _compare(
        self,
        recorded: Recorded,
        made: Program,
        call: list[Tensor],
        want: list[Tensor],
        limit: float = held.LATER,
    ) -> None:
        error = held.difference(want, made(call), len(call[0]))
        if made.half:
            held.near(recorded, made.half, call, error, self._names, limit)
        else:
            held.exactly(error)

    def _settle(self) -> None:
        """Whether bf16 is near enough, by calls of two entries, so that it depends on no size. What was
        recorded is held against the module in float32 before."""
        recorded, given = self._operations(2), self.inputs(2)
        calls = [[scale * given[0], *given[1:]] for scale in SCALES]
        wanted = [self._wanted(call) for call in calls]
        for call, want in zip(calls, wanted, strict=True):
            held.exactly(held.difference(want, reference.run(recorded, call), 2))
        given_back()
        made = self._built(recorded, self.pools.of(self.pools.candidates(2)[-1]))
        for call, want in zip(calls, wanted, strict=True):
            self._compare(recorded, made, call, want, held.HALF_WITHIN)
        self.packed.held = True

    @property
    def _names(self) -> dict[int, str]:
        """Of the module's parameters, by their addresses."""
        module = unwrapped(self.network.module)
        named = module.named_parameters() if isinstance(module, nn.Module) else ()
        return {parameter.data_ptr(): name for name, parameter in named}

    def inputs(self, batch: int) -> list[Tensor]:
        """Of so many entries, as `examples` makes them."""
        return examples(self._example, batch)
