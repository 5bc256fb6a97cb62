"""The order of torch's calls around a capture, with a stand-in for its allocator and generators."""

import gc
from contextlib import nullcontext

import pytest
import torch
from cuda_stand_in import Graph, StandIn

from diffusion_engine.executors import capture
from diffusion_engine.executors.capture import CudaRecorder, Unrecordable


@pytest.fixture(
    params=[{"shared_state": True}, {"shared_state": False}, {"shared_state": False, "tidy": True}],
    ids=["torch 2.11", "torch 2.13", "later"],
)
def cuda(request, monkeypatch):
    made = StandIn(**request.param)
    made.install(monkeypatch)
    monkeypatch.setattr(capture, "_failed", [], raising=False)
    return made


def nothing():
    pass


def full():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_a_capture_that_was_spoilt(cuda):
    """The generator serves eager work again, earlier graphs replay, and the next capture succeeds, in
    another pool."""
    recorder = CudaRecorder()
    first = recorder.record(nothing)
    with pytest.raises(Unrecordable, match="not permitted when stream is capturing"):
        recorder.record(cuda.spoil)
    cuda.check(graphs=1)
    first.replay()
    second = recorder.record(nothing)
    cuda.check(graphs=2)
    assert second.replay.__self__.pool() != first.replay.__self__.pool()
    del first, second, recorder
    cuda.check(graphs=0)


def test_a_capture_that_was_spoilt_without_a_word(cuda):
    def body():
        cuda.capturing["side 0"][0] = True

    with pytest.raises(Unrecordable, match="previous error during capture"):
        CudaRecorder().record(body)
    cuda.check(graphs=0)


def test_a_graph_that_was_spoilt_lives_on(cuda, monkeypatch):
    """The allocator of pinned memory asks it whether a stream is its own, which nothing can undo."""
    with pytest.raises(Unrecordable):
        CudaRecorder().record(cuda.spoil)
    assert len(capture._failed) == 1


@pytest.mark.parametrize("earlier", [0, 1])
def test_out_of_memory_in_a_capture(cuda, earlier):
    """The capture ends well, so that torch itself gives the pool back: once."""
    recorder = CudaRecorder()
    kept = [recorder.record(nothing) for _ in range(earlier)]
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        recorder.record(full)
    cuda.check(graphs=earlier)
    kept.append(recorder.record(nothing))
    cuda.check(graphs=earlier + 1)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_other_errors_pass(cuda, error):
    def body():
        raise error("of the network")

    recorder = CudaRecorder()
    with pytest.raises(error, match="of the network"):
        recorder.record(body)
    cuda.check(graphs=0)
    kept = recorder.record(nothing)
    cuda.check(graphs=1)
    kept.replay()


def test_errors_keep_nothing_alive(cuda):
    """What a failed capture allocated is free for the next try, without a garbage collection."""
    alive = []

    class Memory:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    def body():
        memory = Memory()  # noqa: F841
        full()

    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError) as found:
            CudaRecorder().record(body)
        del found
        assert not alive
    finally:
        gc.enable()


def test_a_capture_that_cannot_begin(cuda, monkeypatch):
    recorder = CudaRecorder()
    kept = recorder.record(nothing)

    def refuse(self, pool, capture_error_mode):
        self.stream = "none"
        raise RuntimeError("CUDA error: out of streams")

    with monkeypatch.context() as patch:
        patch.setattr("cuda_stand_in.Graph.capture_begin", refuse)
        with pytest.raises(Unrecordable, match="out of streams"):
            recorder.record(nothing)
    cuda.check(graphs=1)
    kept.replay()


class Stream:
    """It notes whom it waited for."""

    def __init__(self):
        self.waited = []

    def wait_stream(self, other):
        self.waited.append(other)


@pytest.mark.parametrize("error", [None, ValueError("of the network")])
def test_streams_wait_for_each_other_around_a_warm_up(cuda, monkeypatch, error):
    side, current = Stream(), Stream()
    monkeypatch.setattr(torch.cuda, "Stream", lambda: side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)

    def body():
        assert cuda.streams[0] is side and not current.waited
        if error is not None:
            raise error

    with nullcontext() if error is None else pytest.raises(ValueError, match="of the network"):
        CudaRecorder().warm_up(body)
    assert side.waited == [current] and current.waited == [side]


def test_a_capture_that_begins_to_begin(cuda, monkeypatch):
    """It has taken its share of the pool, and no more."""
    recorder, begin = CudaRecorder(), Graph.capture_begin
    kept = recorder.record(nothing)

    def refuse(self, *given, **named):
        begin(self, *given, **named)
        if first:
            del cuda.capturing[self.stream]
            first.clear()
            raise RuntimeError("CUDA error: out of streams")

    first = [True]
    monkeypatch.setattr(Graph, "capture_begin", refuse)
    with pytest.raises(Unrecordable, match="out of streams"):
        recorder.record(nothing)
    cuda.check(graphs=1)
    kept.replay()


def test_pools_of_two_devices(cuda):
    """A pool ends with the last graph of its own device, whatever the other one has."""
    recorder = CudaRecorder()
    kept = {}
    for device in (0, 1):
        cuda.device = device
        kept[device] = recorder.record(nothing)
    del kept[0]
    cuda.device = 0
    kept[0] = recorder.record(nothing)
    cuda.check(graphs=2)
