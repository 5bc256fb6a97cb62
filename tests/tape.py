"""A stand-in for CUDA graphs on the CPU: it records what torch computes and computes it again.

Like a graph it keeps addresses and the order of operations and nothing else: Python does not run again,
a branch stays as it was taken, and reading a value back fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from diffusion_engine.executors.capture import Recording

READS_BACK = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select")


class Tape(TorchDispatchMode):
    """The operations of a call, with the tensors they read and wrote."""

    current: Tape | None = None

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Callable[[], None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in READS_BACK:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not any(a.alias_info for a in func._schema.returns):
            self.operations.append(lambda: _again(func, args, kwargs, out))
        elif func._schema.is_mutable:
            self.operations.append(lambda: func(*args, **kwargs))
        return out  # of the rest, views: they have no work

    def replay(self) -> None:
        with torch.no_grad():
            for operation in self.operations:
                operation()


def _again(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    for kept, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
        if isinstance(kept, Tensor):
            kept.copy_(new)


class TapeRecorder:
    """Records tapes. Each costs `bytes`; `failures` are raised by the next records, in turn."""

    def __init__(self, bytes: int = 1000, failures: tuple[BaseException, ...] = ()) -> None:
        self.bytes, self.failures = bytes, list(failures)
        self.recorded = 0
        self.sizes: list[int] = []

    def objection(self, device: torch.device) -> str | None:
        return None

    def warm_up(self, body: Callable[[], None]) -> None:
        body()

    def record(self, body: Callable[[], None]) -> Recording:
        if self.failures:
            raise self.failures.pop(0)
        tape = Tape()
        Tape.current = tape
        try:
            with tape:
                body()
        finally:
            Tape.current = None
        self.recorded += 1
        return Recording(tape.replay, self.bytes)


def taped(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """`resolve` whose launches, which torch does not see, are recorded too."""

    def wrapped(*args: Any) -> Callable[..., None]:
        launch = resolve(*args)

        def call(*given: Any) -> None:
            if Tape.current is None:
                launch(*given)
                return
            given = tree_map(lambda t: t, given)
            Tape.current.operations.append(lambda: launch(*given))

        return call

    return wrapped
