"""Recording work on a GPU into CUDA graphs: all that the graph executor needs of CUDA."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol
from weakref import WeakSet

import torch

from .waits import Unrecordable, refuse_waits

Body = Callable[[], object]

WARM_UPS = 3  # cuDNN, cuBLAS and Triton choose, compile and allocate in the first calls
_capturing = Lock()  # a process captures one graph at a time
_failed: list[torch.cuda.CUDAGraph] = []  # torch's allocator of pinned memory may ask them for ever


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
        self._graphs: defaultdict[int, WeakSet[torch.cuda.CUDAGraph]] = defaultdict(WeakSet)

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
        try:
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS - 1):
                    body()
                refuse_waits(body)
        finally:  # what was launched so far writes buffers that the next try fills
            current.wait_stream(side)

    def record(self, body: Body) -> Recording:
        graph, device = torch.cuda.CUDAGraph(), torch.cuda.current_device()
        with _capturing:
            if not self._graphs[device]:  # a pool ends with its last graph
                self._pools.pop(device, None)
            pool = self._pools.setdefault(device, torch.cuda.graph_pool_handle())
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            before = torch.cuda.memory_reserved()
            with torch.cuda.stream(self._stream()):
                try:
                    capture(graph, pool, body)
                except BaseException as error:
                    if not released(graph, device, pool):
                        self._pools.pop(device)
                        reopen()
                    full = isinstance(error, torch.OutOfMemoryError)
                    if isinstance(error, RuntimeError) and not full:
                        raise Unrecordable(first_line(error)) from error
                    raise
        self._graphs[device].add(graph)
        return Recording(graph.replay, max(0, torch.cuda.memory_reserved() - before))

    def _stream(self) -> torch.cuda.Stream:
        device = torch.cuda.current_device()
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream()
        return self._streams[device]


def capture(graph: torch.cuda.CUDAGraph, pool: Any, body: Body) -> None:
    """Captures the work on the current stream, and ends the capture whatever happens."""
    try:
        # Other threads may use the device meanwhile.
        graph.capture_begin(pool, capture_error_mode="thread_local")
        body()
    except BaseException:
        with suppress(RuntimeError):  # it says less than the error that ended the capture
            graph.capture_end()
        raise
    graph.capture_end()


def released(graph: torch.cuda.CUDAGraph, device: int, pool: Any) -> bool:
    """Gives up a graph whose capture failed, and its share of the pool.

    False where torch never came to the end of the capture. Some releases leave the allocator then at giving
    blocks of the pool, and the share taken: that is undone, and the pool is of no further use.
    """
    try:
        graph.pool()  # raises unless torch came to the end
        ended = True
    except RuntimeError:
        _failed.append(graph)
        ended = False
    graph.reset()
    if not ended:
        with suppress(RuntimeError):  # the release undoes it itself, or the capture never began
            torch._C._cuda_endAllocateToPool(device, pool)
            torch._C._cuda_releasePool(device, pool)
    return ended


def reopen() -> None:
    """Gives the device's generator back to eager work after a capture that never came to its end.

    Before torch 2.13 a generator has one state for all captures, which counts as capturing until one of
    them ends well. Graphs from before replay with that very state, so it is not replaced: a
    capture of next to nothing ends well.
    """
    with suppress(RuntimeError):
        graph, x = torch.cuda.CUDAGraph(), torch.empty((), device="cuda")
        capture(graph, torch.cuda.graph_pool_handle(), x.zero_)
        graph.reset()


def first_line(error: BaseException) -> str:
    """What an error says, or its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
