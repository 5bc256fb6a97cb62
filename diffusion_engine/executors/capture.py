"""Recording work on a GPU into CUDA graphs: all that the graph executor needs of CUDA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import torch

Body = Callable[[], None]

_capturing = Lock()  # a process captures one graph at a time
WARM_UPS = 3  # cuDNN, cuBLAS and Triton choose, compile and allocate in the first calls


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
        """Does the work until nothing in it is done for the first time."""

    def record(self, body: Body) -> Recording:
        """Records the work. Raises RuntimeError where it cannot be."""


class CudaRecorder:
    """Records CUDA graphs of one memory pool: they are replayed one after another, so that a graph may
    use the blocks of another."""

    def __init__(self) -> None:
        self._pools: dict[torch.device, Any] = {}
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def objection(self, device: torch.device) -> str | None:
        if device.type == "cuda":
            return None
        return f"CUDA graphs run on a CUDA device and the network is on {device}"

    def warm_up(self, body: Body) -> None:
        side, current = self._stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                body()
        current.wait_stream(side)

    def record(self, body: Body) -> Recording:
        graph, device = torch.cuda.CUDAGraph(), self._device()
        if device not in self._pools:
            self._pools[device] = torch.cuda.graph_pool_handle()
        current = torch.cuda.current_stream()
        with _capturing:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()  # torch.cuda.graph does so too: here, so that it is not counted
            before = torch.cuda.memory_reserved()
            try:
                with torch.cuda.graph(
                    graph,
                    pool=self._pools[device],
                    stream=self._stream(),
                    capture_error_mode="thread_local",  # other threads may use the device meanwhile
                ):
                    body()
            finally:  # a capture that fails would leave its own stream in place
                torch.cuda.set_stream(current)
        return Recording(graph.replay, max(0, torch.cuda.memory_reserved() - before))

    def _device(self) -> torch.device:
        return torch.device("cuda", torch.cuda.current_device())

    def _stream(self) -> torch.cuda.Stream:
        device = self._device()
        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream()
        return self._streams[device]
