"""Plays CUDA's part in captures where there is no GPU: what torch's allocator and generators keep of one.

As torch does: a capture takes a share of its pool when it begins, and the allocator gives blocks of the
pool from then until it ends. A share given back twice, or a pool used after its last share while some block
of it is in use, is an internal assertion. A capture that was spoilt does not end: `capture_end` raises at
its first line. Later releases then take the allocator off the pool, and `reset` gives the share back.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager

import torch


class StandIn:
    """A process with some GPUs.

    shared_state  as before torch 2.13: a generator has one state for all captures
    tidy          as later releases are
    """

    def __init__(self, shared_state: bool, tidy: bool = False) -> None:
        self.shared_state, self.tidy = shared_state, tidy
        self.device, self.handles, self.captures = 0, 0, 0
        self.streams = {0: "default 0", 1: "default 1"}
        self.shares: Counter[tuple[int, int]] = Counter()  # (device, pool) -> graphs
        self.gone: set[tuple[int, int]] = set()
        self.underway: set[tuple[int, int]] = set()
        self.capturing: dict[str, list[bool]] = {}  # stream -> whether the capture is spoilt
        self.flag = {0: False, 1: False}  # of each generator's one state
        self.states: set[int] = set()  # of captures, from 2.13
        self.alive = 0

    def install(self, monkeypatch) -> None:
        cuda = torch.cuda
        for name, value in {
            "CUDAGraph": lambda: Graph(self),
            "Stream": lambda: f"side {self.device}",
            "stream": self._on_stream,
            "current_device": lambda: self.device,
            "current_stream": lambda: self.streams[self.device],
            "set_stream": lambda stream: self.streams.update({self.device: stream}),
            "graph_pool_handle": self._handle,
            "synchronize": lambda: None,
            "empty_cache": lambda: None,
            "memory_reserved": lambda: 0,
        }.items():
            monkeypatch.setattr(cuda, name, value)
        monkeypatch.setattr(cuda, "graph", self._graph)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", self._end_allocate)
        monkeypatch.setattr(torch._C, "_cuda_releasePool", self._release)
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *size, device=None: empty(*size))

    @contextmanager
    def _on_stream(self, stream: str):
        before, self.streams[self.device] = self.streams[self.device], stream
        try:
            yield
        finally:
            self.streams[self.device] = before

    @contextmanager
    def _graph(self, graph, pool, stream, capture_error_mode):
        """torch.cuda.graph, which leaves the stream as it is where `capture_end` raises."""
        before, self.streams[self.device] = self.streams[self.device], stream
        graph.capture_begin(pool, capture_error_mode=capture_error_mode)
        try:
            yield
        finally:
            graph.capture_end()
            self.streams[self.device] = before

    def _handle(self) -> int:
        self.handles += 1
        return self.handles

    def _end_allocate(self, device: int, pool: int) -> None:
        if (device, pool) not in self.underway:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.underway.remove((device, pool))

    def _release(self, device: int, pool: int) -> None:
        if self.shares[device, pool] < 1:
            raise RuntimeError("INTERNAL ASSERT FAILED: uc >= 0")
        self.shares[device, pool] -= 1
        if not self.shares[device, pool]:
            self.gone.add((device, pool))

    def spoil(self) -> None:
        """What a wait for the device does to the current capture."""
        self.capturing[self.streams[self.device]][0] = True
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    def randn(self) -> None:
        """torch.randn(device="cuda") outside of captures."""
        if self.flag[self.device]:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

    def check(self, graphs: int) -> None:
        """Everything is as if only these graphs had ever been captured, on the current device."""
        assert not self.underway and not self.capturing and not self.states
        assert sum(self.shares.values()) == graphs == self.alive
        assert self.streams == {0: "default 0", 1: "default 1"}
        self.randn()


class Graph:
    """torch.cuda.CUDAGraph."""

    def __init__(self, cuda: StandIn) -> None:
        self.cuda, self.begun, self.ended, self.id = cuda, False, False, 0
        self.key = None

    def capture_begin(self, pool: int, capture_error_mode: str = "global") -> None:
        cuda = self.cuda
        self.device, self.key, self.stream = (
            cuda.device,
            (cuda.device, pool),
            cuda.streams[cuda.device],
        )
        assert self.stream.startswith("side"), "graphs must be captured on a non-default stream"
        cuda.flag[self.device] = cuda.shared_state
        if self.key in cuda.gone or self.key in cuda.underway:
            raise RuntimeError("INTERNAL ASSERT FAILED: use_count > 0, or already recording")
        cuda.shares[self.key] += 1
        cuda.underway.add(self.key)
        cuda.captures += 1
        self.id, self.begun = cuda.captures, True
        cuda.capturing[self.stream] = [False]
        if not cuda.shared_state:
            cuda.states.add(self.id)

    def capture_end(self) -> None:
        cuda = self.cuda
        if cuda.capturing.pop(self.stream, [True])[0]:
            if cuda.tidy and self.begun:
                cuda._end_allocate(*self.key)
            raise RuntimeError(
                "CUDA error: operation failed due to a previous error during capture"
            )
        cuda._end_allocate(*self.key)
        cuda.flag[self.device] = False
        cuda.states.discard(self.id)
        self.ended = True
        cuda.alive += 1

    def pool(self) -> int:
        if not self.ended:
            raise RuntimeError("Called CUDAGraph::pool() without a preceding successful capture.")
        return self.key[1]

    def replay(self) -> None:
        assert self.ended
        if self.cuda.flag[self.device]:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")

    def reset(self) -> None:
        self.cuda.states.discard(self.id)
        if self.ended or (self.cuda.tidy and self.begun):
            if self.key in self.cuda.underway:
                self.cuda._end_allocate(*self.key)
            self.cuda._release(*self.key)
        self.cuda.alive -= self.ended
        self.ended = self.begun = False

    def __del__(self) -> None:
        self.reset()
