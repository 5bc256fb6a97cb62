"""A stand-in for CUDA graphs on the CPU: it records what torch computes and computes it again.

Like a graph it keeps addresses and the order of operations and nothing else: Python does not run again,
a branch stays as it was taken, reading a value back fails, and tensors from before the capture are not
kept alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from diffusion_engine.executors import Graph, stages
from diffusion_engine.executors.capture import Recording
from diffusion_engine.executors.waits import refuse_waits


class Tape(TorchDispatchMode):
    """The operations of a call, with the tensors they read and wrote."""

    current: Tape | None = None

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Callable[[], None]] = []
        self.own: set[int] = set()  # storages that were made during the capture

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # under inference_mode an operation that consists of others comes whole
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        out = func(*args, **kwargs)
        given = self.hold((args, kwargs))
        if not any(a.alias_info for a in func._schema.returns):
            self.own |= {t.untyped_storage().data_ptr() for t in tensors(out)}
            self.operations.append(lambda: _again(func, given(), out))
        elif func._schema.is_mutable:
            self.operations.append(lambda: func(*given()[0], **given()[1]))
        return out  # of the rest, views: they have no work

    def hold(self, values: Any) -> Callable[[], Any]:
        """The values, later; as a graph it knows the addresses of tensors from outside, no more."""

        def kept(t: Any) -> Any:
            outside = isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in self.own
            return _Address(t) if outside else t

        held = tree_map(kept, values)
        return lambda: tree_map(lambda t: t.tensor() if isinstance(t, _Address) else t, held)

    def replay(self) -> None:
        with torch.inference_mode():  # as a graph, it writes what a network made in that mode, too
            for operation in self.operations:
                operation()


class _Address:
    """Where a tensor was."""

    def __init__(self, tensor: Tensor) -> None:
        self.storage = weakref.ref(tensor.untyped_storage())
        self.about = tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype

    def tensor(self) -> Tensor:
        storage = self.storage()
        assert storage is not None, "a replay read memory that was freed"
        shape, stride, offset, dtype = self.about
        return torch.empty(0, dtype=dtype).set_(storage, offset, shape, stride)


def tensors(values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


def _again(func: Any, given: Any, out: Any) -> None:
    args, kwargs = given
    for kept, new in zip(tensors(out), tensors(func(*args, **kwargs)), strict=True):
        kept.copy_(new)


class TapeRecorder:
    """Records tapes, each of `bytes`. An error in `failures` under "warm_up" or "record" is raised there,
    one at a call, in turn."""

    def __init__(self, bytes: int = 1000, **failures: list[BaseException]) -> None:
        self.bytes, self.failures = bytes, failures
        self.recorded = 0

    def objection(self, device: torch.device) -> str | None:
        return None

    def warm_up(self, body: Callable[[], None]) -> None:
        self._fail("warm_up")
        refuse_waits(body)

    def record(self, body: Callable[[], None]) -> Recording:
        self._fail("record")
        Tape.current = tape = Tape()
        try:
            with tape:
                body()
        finally:
            Tape.current = None
        self.recorded += 1
        return Recording(tape.replay, self.bytes)

    def _fail(self, where: str) -> None:
        if self.failures.get(where):
            raise self.failures[where].pop(0)


def taped(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """`resolve` whose launches, which torch does not see, are recorded too."""

    def wrapped(*args: Any) -> Callable[..., None]:
        launch = resolve(*args)

        def call(*args: Any) -> None:
            launch(*args)
            if Tape.current is not None:
                given = Tape.current.hold(args)
                Tape.current.operations.append(lambda: launch(*given()))

        return call

    return wrapped


@pytest.fixture(autouse=True)
def launches_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the modules that give it a name of theirs."""
    monkeypatch.setattr(stages, "resolve", taped(stages.resolve))


def taping(**options: Any) -> Graph:
    """The graph executor, on tapes."""
    return Graph(recorder=TapeRecorder(), **options)
