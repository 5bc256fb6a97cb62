"""`Recording`: a network as the native executor runs it, at any batch size."""

from __future__ import annotations

import threading
from collections.abc import Mapping
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
from .export import structure
from .fitness import unfit
from .lower import UNFIT, Refused
from .memory import given_back
from .packed import Packed
from .pools import Pools
from .program import Alone, Program
from .record import Graph, Recorded

WITHIN = 1e-4  # of the largest element of an output: what a recording may differ by from the module
SCALES = (1.0, -0.5, 0.25)  # of the inputs that a recording is held against the module on
LONG = 0.1  # seconds of a call that takes all threads: to measure other numbers would take seconds
MEET = 4  # entries of the call in which samples meet for the first time
FLAT = torch.contiguous_format
BEFORE = 1 << 28  # bytes of packed weights that the network had before: adapters take turns


class Called(nn.Module):
    """A network as a function of its inputs, a list of tensors."""

    def __init__(self, network: ScoreNetwork, given: Inputs) -> None:
        super().__init__()
        self.network, self.kinds = network, given
        if isinstance(network.module, nn.Module):
            self.module = network.module  # whose weights torch.export finds

    def forward(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        return self.network(*taken_up(self.kinds, tensors))


def taken_apart(given: Inputs) -> list[Tensor]:
    """The tensors of a call."""
    x, label, condition, latent = given
    named = condition.values() if isinstance(condition, Mapping) else [condition]
    return [t for t in (x, label, *named, latent) if t is not None]


def taken_up(like: Inputs, tensors: list[Tensor]) -> Inputs:
    """The call of tensors, where the others were those of `like`."""
    x, label, *rest = tensors
    condition: Any = like[2]
    if isinstance(condition, Mapping):
        condition = {name: rest.pop(0) for name in condition}
    elif condition is not None:
        condition = rest.pop(0)
    return x, label, condition, rest.pop(0) if like[3] is not None else None


def examples(like: list[Tensor], batch: int) -> list[Tensor]:
    """The tensors of a call of so many entries: normals at different times, under conditions of different
    sizes.

    like  the tensors of a call of one entry
    """
    numbers = torch.Generator().manual_seed(0)
    given = [one.expand(batch, *one.shape[1:]).clone(memory_format=FLAT) for one in like]
    given[0] = torch.randn(given[0].shape, generator=numbers)
    for i in range(batch):
        share = i % MEET / MEET
        given[1][i].sub_((given[1][i] * share).to(given[1].dtype))
        for tensor in given[2:]:
            if tensor.is_floating_point():
                tensor[i].mul_(1 - share)
    return given


class Recording:
    """A network's graph and its packed weights. Raises Refused where it cannot be recorded.

    network  in eval mode, on the CPU in float32
    given    inputs of a call, of any number of entries
    pools    threads that replay it
    sizes    bytes of a program's memory, by the number of entries
    threads  that replay, and seconds of a call by their number, by the number of entries: what was measured

    One thread at a time makes programs and looks at the weights: `lock`.
    """

    def __init__(self, network: ScoreNetwork, given: Inputs, pools: Pools) -> None:
        self.network, self.pools, self.lock = network, pools, threading.RLock()
        if objection := unfit(network):
            raise Refused(objection)
        self._called = Called(network, given)
        traced = Called(network.with_module(structure(network.module)), given)
        self._example = [t[:1].clone() for t in taken_apart(given)]
        self._graph = Graph(traced, self.inputs(2))
        self._watched = Watched(network.module, self._graph.constants())
        self.same, self.written = self._watched.same, self._watched.written
        self.packed = Packed(self._watched.known())
        self._kept: Lru[tuple, Packed] = Lru(BEFORE)
        self.choices = Kept("threads", [self._graph.text, self.packed.known[0]], is_count)
        self.sizes: dict[int, int] = {}
        self.threads: dict[int, int] = {}
        self.times: dict[int, dict[int, float]] = {}
        self._exact: bool | None = None

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
            self.packed = self._kept.take(known) or Packed(known)
            self._kept.put(before.known, before, before.bytes)

    def release(self) -> None:
        """Lets go of packed weights, which the next program packs anew."""
        with self.lock:
            self.packed, self._kept = Packed(self.packed.known), Lru(BEFORE)

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
                clocked(partial(self._compare, made, call, want))
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
            known = self.threads.get(batch) or self.choices.get(batch)
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
        self.choices.put(batch, threads)
        return made_of[threads]

    def _wanted(self, given: list[Tensor]) -> list[Tensor]:
        """What the module makes of a call."""
        with torch.no_grad():
            return [out.clone() for out in self._called(given)]

    def _compare(self, made: Program, given: list[Tensor], want: list[Tensor]) -> None:
        got = made(given)
        if len(want) != len(got):
            raise Refused(f"it returned {len(want)} tensors and the recording has {len(got)}")
        for a, b in zip(want, got, strict=True):
            if a.shape != b.shape:
                raise Refused(
                    f"of {len(given[0])} entries it returned {list(a.shape)} and the recording has "
                    f"{list(b.shape)}: it has the size of a call as a number in it"
                )
            error = float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))
            if not error <= WITHIN:
                raise Refused(
                    f"its outputs differ by {error:.1e} of the largest from the module's own: it draws "
                    "random numbers, or keeps something from call to call"
                )

    def inputs(self, batch: int) -> list[Tensor]:
        """Of so many entries, as `examples` makes them."""
        return examples(self._example, batch)
