"""`Program`: a recorded call on memory of its own, replayed by the C++ runner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ..backends.native import module
from .arena import plan
from .emit import Emitter
from .makers import MAKERS
from .memory import zeros
from .record import Recorded
from .values import Buffer, Value
from .weights import Weights

_cpu: Any = module("_cpu")  # where it is missing nothing is recorded

# What torch does of these is a copy, whose bits depend on nothing.
MOVES = {"copy", "pad"} | {
    f"torch {name}.{overload}"
    for name, overload in (
        ("cat", "default"), ("clone", "default"), ("gather", "default"), ("index", "Tensor"),
        ("index_select", "default"), ("embedding", "default"), ("_to_copy", "default"),
        ("flip", "default"), ("roll", "default"), ("constant_pad_nd", "default"),
    )
}  # fmt: skip


class Program:
    """One batch size of a network.

    recorded  its operations
    pool      threads that replay them
    weights   constants, shared with the network's other programs
    beside    a program of the same operations whose memory it shares: they run in turns
    """

    def __init__(
        self, recorded: Recorded, pool: Any, weights: Weights, beside: Program | None = None
    ) -> None:
        if beside is None:
            places, size = plan(recorded.operations, recorded.inputs, recorded.outputs)
            arena = zeros(max(size, 64))
        else:
            places, arena = beside.memory
        self.memory: tuple[dict[Buffer, int], Tensor] = places, arena
        self._places, self._arena, self._weights = places, arena, weights
        self.threads = int(pool.threads)
        self.native = _cpu.Program(pool)
        emit = Emitter(self._address, weights)
        for value in recorded.inputs:
            self.native.input(self._address(value), value.buffer.bytes)
        self.called: list[str] = []  # operations that torch does
        self.half: set[int] = set()  # operations that are done in bf16
        self.exact = True  # whether what torch does has no part in the bits
        for i, operation in enumerate(recorded.operations):
            make = MAKERS.get(type(operation))
            params = None if make is None else make(emit, operation)
            if params is None:
                # Of a call that held the program, which holds the call, the collector would know nothing.
                get = partial(_tensor, places, arena)
                self.native.add_call(partial(operation.run, get), operation.name)
                self.called.append(operation.name)
                self.exact = self.exact and operation.name in MOVES
            elif emit.half(operation):
                self.native.add(params, f"{operation.name} bf16")
                self.half.add(i)
            else:
                self.native.add(params, operation.name)
        self.outputs = [_tensor(places, arena, value) for value in recorded.outputs]

    @property
    def bytes(self) -> int:
        """Of its memory, the weights not among them."""
        return self.memory[1].nbytes

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The outputs, which the next call overwrites.

        inputs  contiguous
        """
        self.native.run([given.data_ptr() for given in inputs], [])
        return self.outputs

    def then(self, inputs: Sequence[Tensor], behind: Any) -> Callable[[], object]:
        """A call of inputs that stay where they are, and the step behind it.

        behind  its parameters, which have the outputs' addresses
        """
        addresses = [given.data_ptr() for given in inputs]

        def run(own: Any = (self, inputs)) -> None:  # what lies there is kept
            self.native.run(addresses, [], behind)

        return run

    def _address(self, value: Value) -> int:
        at = self._places[value.buffer] + value.offset * value.dtype.itemsize
        return self._arena.data_ptr() + at


class Alone(Program):
    """A call of one entry, made as one of two that are alike.

    program  of two entries
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.native, self.threads, self.memory = program.native, program.threads, program.memory
        self.called, self.exact, self.half = program.called, program.exact, program.half
        self.outputs = [out[:1] for out in program.outputs]

    def __call__(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        self.program(_twice(inputs))
        return self.outputs

    def then(self, inputs: Sequence[Tensor], behind: Any) -> Callable[[], object]:
        two = _twice(inputs)
        run = self.program.then(two, behind)

        def copied() -> None:
            for kept, given in zip(two, inputs, strict=True):
                kept.copy_(given.expand_as(kept))
            run()

        return copied


def _twice(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [given.expand(2, *given.shape[1:]).contiguous() for given in inputs]


def _tensor(places: dict[Buffer, int], arena: Tensor, value: Value) -> Tensor:
    at = places[value.buffer]
    return value.of(arena[at : at + value.buffer.bytes].view(value.dtype))
