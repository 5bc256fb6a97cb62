"""Recording work on a GPU into CUDA graphs: all that the graph executor needs of CUDA."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol
from weakref import WeakSet

import torch

from .waits import Unrecordable, refuse_waits

Body = Callable[[], None]

WARM_UPS = 3  # cuDNN, cuBLAS and Triton choose, compile and allocate in the first calls
_capturing = Lock()  # a process captures one graph at a time


class GraphError(ValueError):
    """Why a run cannot be captured or replayed, and what to do."""


@dataclass(frozen=True)
class Recording:
    """Recorded work: `replay` does it again on the same addresses; bytes of memory it keeps."""

    replay: Body
    bytes: int


class Recorder(Protocol):
    """What the graph executor records with; a test records on the CPU with one of its own."""

    def objection(self, device: torch.device) -> str | None:
        """Why it cannot record on a device, or None."""

    def warm_up(self, body: Body) -> None:
        """Does the work until nothing in it is done for the first time. Raises Unrecordable."""

    def record(self, body: Body) -> Recording:
        """Records the work. Raises Unrecordable, or torch.OutOfMemoryError."""


class CudaRecorder:
    """Records CUDA graphs of one memory pool a device: they are replayed one after another, so that a
    graph may use the blocks of another."""

    def __init__(self) -> None:
        self._pools: dict[int, Any] = {}
        self._streams: dict[int, torch.cuda.Stream] = {}
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        self._failed: list[torch.cuda.CUDAGraph] = []  # the allocator may still hold on to them

    def __reduce__(self) -> tuple:
        return type(self), ()  # what was recorded stays where it was

    def objection(self, device: torch.device) -> str | None:
        if device.type == "cuda":
            return None
        return f"CUDA graphs run on a CUDA device and the network is on {device}"

    def warm_up(self, body: Body) -> None:
        """The last time watched: a wait that is found here spoils no capture."""
        side, current = self._stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS - 1):
                body()
            refuse_waits(body)
        current.wait_stream(side)

    def record(self, body: Body) -> Recording:
        graph, current, device = (
            torch.cuda.CUDAGraph(),
            torch.cuda.current_stream(),
            torch.cuda.current_device(),
        )
        with _capturing:
            if not self._graphs:  # a pool ends with its last graph
                self._pools.clear()
            pool = self._pools.setdefault(device, torch.cuda.graph_pool_handle())
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # torch.cuda.graph does so too: here, so that it is not counted
            before = torch.cuda.memory_reserved()
            try:
                with torch.cuda.graph(
                    graph,
                    pool=pool,
                    stream=self._stream(),
                    capture_error_mode="thread_local",  # other threads may use the device meanwhile
                ):
                    body()
            except RuntimeError as error:
                self._abandon(graph, device, pool, current)
                # capture_end's own error hides the one that ended the capture.
                cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
                if isinstance(cause, torch.OutOfMemoryError):
                    raise cause from None
                raise Unrecordable(first_line(cause)) from error
        self._graphs.add(graph)
        return Recording(graph.replay, max(0, torch.cuda.memory_reserved() - before))

    def _abandon(
        self, graph: torch.cuda.CUDAGraph, device: int, pool: Any, stream: torch.cuda.Stream
    ) -> None:
        """Undoes what torch leaves behind where a capture fails: its stream, and the allocator's pool."""
        torch.cuda.set_stream(stream)
        for undo in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            with suppress(RuntimeError, AttributeError):  # it may not have come so far
                getattr(torch._C, undo)(device, pool)
        self._failed.append(graph)
        self._pools.pop(device, None)

    def _stream(self) -> torch.cuda.Stream:
        device = torch.cuda.current_device()
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream()
        return self._streams[device]


def first_line(error: BaseException) -> str:
    """What an error says, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
