"""Memory that runs out in a call: smaller ones are made, and after a while larger ones again."""

import pytest
import torch
from engine_cases import TIMEOUT, Network, one, plain, running, same, spec
from engine_networks import conditional, placed
from tape import launches_are_recorded, taping

from diffusion_engine import Sampler
from diffusion_engine.engine import Engine, EngineError, calls
from diffusion_engine.engine.calls import Limit

__all__ = ["launches_are_recorded"]


@pytest.mark.parametrize("room", [1, 2, 3, 5])
def test_memory_that_runs_out(room):
    network = Network()
    network.room = room
    with running(8, network) as (_, engine):
        request = {"seeds": range(8), "condition": range(8)}
        handle = engine.submit(spec("heun", 4), **request)
        assert same(handle, "heun", 4, **request)
        tried = [len(labels) for labels in network.calls if len(labels) > room]
        assert len(tried) <= 3  # the size that it suffices for is remembered
        assert max(size for size in map(len, network.calls) if size <= room) == {3: 2, 5: 4}.get(
            room, room
        )
        assert same(engine.submit(spec("heun", 4), **request), "heun", 4, **request)
        assert [len(labels) for labels in network.calls if len(labels) > room] == tried


def test_memory_that_suffices_for_none():
    network = Network()
    network.room = 0
    with running(4, network) as (_, engine):
        handles = [engine.submit(spec(), **one(i)) for i in range(4)]
        for handle in handles:
            with pytest.raises(torch.OutOfMemoryError):
                handle.result(TIMEOUT)
        network.room = 4
        assert same(engine.submit(spec(), **one(1)), **one(1))


def test_memory_that_runs_out_in_calls_of_one_size():
    network = Network()
    network.room = 6
    with running(4, network, batch="fixed") as (_, engine):
        handle = engine.submit(spec(), **one(1))
        with pytest.raises(
            EngineError, match="memory ran out in a call of 8 entries, and batch='fixed'"
        ):
            handle.result(TIMEOUT)
        network.room = 8
        assert same(engine.submit(spec(), **one(1)), **one(1))


@pytest.mark.parametrize("batch", ["bucket", "fixed"])
def test_memory_that_one_sample_takes(batch):
    """Whose own call is more than there is: the others of its batch go on."""
    network = Network()
    network.raises[2] = torch.OutOfMemoryError("one takes it all")
    with running(4, network, batch=batch) as (_, engine):
        with network.held(engine, 3):
            handles = [engine.submit(spec(steps=5), **one(i)) for i in range(4)]
        for i in (0, 1, 3):
            assert same(handles[i], steps=5, **one(i))
        with pytest.raises((torch.OutOfMemoryError, EngineError), match=r"it all|memory ran out"):
            handles[2].result(TIMEOUT)


def test_memory_that_runs_out_in_a_capture():
    recorder = taping()
    recorder._recorder.failures["record"] = [torch.OutOfMemoryError("full")] * 2
    network = Network()
    network.score = network.score.with_module(plain)
    with running(4, network, executor=recorder) as (_, engine):
        request = {"seeds": range(4), "condition": range(4)}
        assert same(engine.submit(spec(steps=3), **request), steps=3, **request)
        assert same(engine.submit(spec(steps=3), **one(1)), steps=3, **one(1))


EIGHT = {"seeds": range(8), "condition": range(8)}


def test_what_is_lacking_is_tried_ever_less_often(monkeypatch):
    monkeypatch.setattr(calls, "APART", 4)
    network = Network()
    network.room = 4
    with running(8, network) as (_, engine):
        assert same(engine.submit(spec(steps=40), **EIGHT), steps=40, **EIGHT)
    made = [len(labels) for labels in network.calls]
    tried = [made[:i].count(4) // 2 for i, size in enumerate(made) if size == 8]
    assert set(made) == {8, 4} and tried == [0, 4, 12, 28]  # after so many rows


def test_memory_that_is_there_again_is_used(monkeypatch):
    """Step by step, and where it then runs out the wait is short again."""
    monkeypatch.setattr(calls, "APART", 4)
    network = Network()
    network.room = 2
    with running(8, network) as (_, engine):
        assert same(engine.submit(spec(steps=10), **EIGHT), steps=10, **EIGHT)
        assert [len(labels) for labels in network.calls].count(4) == 2
        network.room = 8
        network.calls.clear()
        assert same(engine.submit(spec(steps=40), **EIGHT), steps=40, **EIGHT)
    made = [len(labels) for labels in network.calls]
    assert set(made) == {2, 4, 8} and made == sorted(made) and made.count(8) > 20


def test_a_limit_that_has_held_is_tried_soon_where_memory_runs_out_again():
    limit = Limit(8)

    def rows_until(most):
        rows = 0
        while limit.most != most:
            limit.row()
            rows += 1
        return rows

    limit.halve(8)
    assert limit.most == 4 and rows_until(8) == calls.APART
    limit.halve(8)
    limit.halve(4)
    assert limit.most == 2 and rows_until(4) == 2 * calls.APART
    assert rows_until(8) == 2 * calls.APART  # so long 4 has held
    limit.halve(8)
    assert limit.most == 4 and rows_until(8) == 2 * calls.APART
    for _ in range(2 * calls.APART):
        limit.row()
    limit.halve(8)
    assert rows_until(8) == calls.APART
    limit.halve(1)
    assert limit.most == 1


def test_parts_that_grow_are_made_again(monkeypatch):
    """Each row's parts are recorded as they were, on a network whose bits depend on sizes and places."""
    monkeypatch.setattr(calls, "APART", 3)
    room = [2]

    def narrow(x, label, y):
        if len(x) > room[0]:
            room[0] += 2
            raise torch.OutOfMemoryError("too many")
        return placed(x, label, y)

    own = conditional(narrow)
    with Engine(own, capacity=8, probe=False) as engine:
        made = engine.submit(spec(steps=30), **EIGHT).result(TIMEOUT)
    sizes = {size for sample in made.recipe["calls"] for run in sample for size in run[1::2]}
    assert sizes == {4, 8} and room == [8]
    again = Sampler.replay(own, made.recipe)
    assert torch.equal(again.samples, made.samples) and again.recipe == made.recipe
