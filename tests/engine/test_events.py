"""What readers are told, and that none of them holds the engine up."""

import asyncio
import threading

import pytest
import torch
from engine_cases import TIMEOUT, one, running, same, spec

from diffusion_engine import Sampler
from diffusion_engine.engine import Cancelled, Event, Events


def kinds(events):
    return [event.kind for event in events]


def test_the_order_of_events():
    with running(2) as (network, engine):
        with network.held(engine):
            handle = engine.submit(spec(steps=4), **one(1), preview=2)
            told = handle.events(room=100)
        events = list(told)
    assert kinds(events) == ["queued", "started", "row", "row", "preview", "row", "preview", "done"]
    rows = events[2:-1]
    assert [event.row for event in rows] == [0, 1, 2, 3, 4]
    assert {event.rows for event in rows} == {5} and {event.sample for event in rows} == {0}
    assert list(told) == [] and handle.status == "done"


def test_previews_are_the_estimates():
    seen = []
    sampler = Sampler(running_network(), "heun", 3)
    sampler.sample(
        seeds=[1], condition=[1], progress=False, on_step=lambda p: seen.append(p.denoised.clone())
    )
    with running(2) as (network, engine):
        with network.held(engine):
            handle = engine.submit(spec("heun", 3), **one(1), preview=1)
            told = handle.events(room=100)
        previews = [event for event in told if event.kind == "preview"]
    assert len(previews) == handle.rows - 1
    assert previews[-1].denoised.shape == (3, 5, 7)
    made = torch.stack([event.denoised for event in previews])
    assert all(any(torch.equal(want[0], got) for got in made) for want in seen)


def running_network():
    from executor_cases import CONDITIONAL

    return CONDITIONAL


def test_several_samples_are_told_apart():
    with running(2) as (network, engine):
        with network.held(engine):
            handle = engine.submit(spec(steps=2), seeds=range(5), condition=range(5))
            told = handle.events(room=1000)
        events = list(told)
    rows = [(event.sample, event.row) for event in events if event.kind == "row"]
    assert sorted(rows) == [(sample, row) for sample in range(5) for row in range(3)]
    assert kinds(events).count("started") == 1


def test_a_slow_reader_loses_rows_and_no_end():
    with running(2) as (network, engine):
        with network.held(engine):
            handle = engine.submit(spec(steps=40), **one(1), preview=1)
            slow, fast = handle.events(room=3), handle.events(room=100)
        assert same(handle, steps=40, **one(1))  # nobody has read yet
        assert len(list(fast)) == 44
        events = list(slow)
    assert kinds(events) == ["queued", "started", "preview", "preview", "preview", "done"]
    assert [event.row for event in events[2:5]] == [38, 39, 40]


def test_a_reader_without_room_is_told_the_end():
    with running(2) as (network, engine):
        with network.held(engine):
            handle = engine.submit(spec(steps=3), **one(1), preview=1)
            events = handle.events(room=0)
            for wrong in (-1, 1.5, "all"):
                with pytest.raises(ValueError, match="room="):
                    handle.events(room=wrong)
        assert same(handle, steps=3, **one(1))
        assert kinds(list(events)) == ["queued", "started", "done"]


def test_a_reader_that_waits_and_one_that_comes_late():
    read, handed = [], threading.Event()

    def reader():
        handed.set()
        read.extend(handle.events(room=100))

    with running(1) as (network, engine):
        with network.held(engine):
            handle = engine.submit(spec(steps=2), **one(1))
            thread = threading.Thread(target=reader)
            thread.start()
            assert handed.wait(TIMEOUT)
        handle.result(TIMEOUT)
        thread.join(TIMEOUT)
        assert not thread.is_alive() and read[-1].kind == "done"
        assert kinds(handle.events()) == ["queued", "started", "done"]
        cancelled = engine.submit(spec(steps=2), **one(1))
        cancelled.cancel()
        assert kinds(cancelled.events())[-1] == "cancelled"


def test_async_readers():
    async def kinds_of(handle):
        return [event.kind async for event in handle.events(room=100)]

    async def several(handle):
        return await asyncio.wait_for(
            asyncio.gather(*(kinds_of(handle) for _ in range(3))), TIMEOUT
        )

    with running(1) as (_, engine):
        for kinds in asyncio.run(several(engine.submit(spec(steps=3), **one(1)))):
            assert kinds[0] == "queued" and kinds[-1] == "done" and "started" in kinds


def test_a_reader_whose_loop_is_gone():
    """It was closed while its request ran: nobody else notices."""

    async def first(handle):
        events = handle.events()
        assert (await anext(events)).kind == "queued"
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        waiting.cancel()
        return events

    with running(1) as (network, engine):
        with network.held(engine):
            handle = engine.submit(spec(steps=2), **one(1))
            kept = asyncio.run(first(handle))
        assert same(handle, steps=2, **one(1)) and same(engine.submit(spec(), **one(2)), **one(2))
        assert kinds(kept)[-1] == "done"


def test_nothing_comes_after_the_end():
    events = Events(4, lambda reader: None)
    for kind in ("queued", "cancelled", "started", "row", "done"):
        events.put(Event(kind))
    assert kinds(events) == ["queued", "cancelled"]


def test_every_reader_is_told_the_end():
    """Readers that come while requests end miss nothing: each reads to the end."""
    stuck = []
    with running(4) as (_, engine):
        for i in range(100):
            handle = engine.submit(spec(), **one(i % 10))
            readers = [handle.events() for _ in range(5)]
            if i % 2:
                handle.cancel()
            readers += [handle.events() for _ in range(5)]
            for reader in readers:
                told = kinds(reader)
                if (
                    told[0] != "queued"
                    or told[-1] != handle.status
                    or len(set(told)) < len(told) - 2
                ):
                    stuck.append(told)
    assert not stuck


def test_a_callback_that_raises(caplog):
    told, all_told = [], threading.Event()

    def broken(_):
        raise ZeroDivisionError("of the callback")

    with running(2) as (network, engine):
        with network.held(engine):
            handle, other = engine.submit(spec(), **one(1)), engine.submit(spec(), **one(2))
            handle.add_done_callback(broken)
            handle.add_done_callback(told.append)
            handle.add_done_callback(lambda _: all_told.set())
        assert same(handle, **one(1)) and same(other, **one(2))
        assert all_told.wait(TIMEOUT) and told == [handle]
    assert "ZeroDivisionError: of the callback" in caplog.text


def test_cancelled_from_a_callback():
    with running(1) as (network, engine):
        with network.held(engine) as first:
            second, third = (engine.submit(spec(), **one(i)) for i in (1, 2))
            first.add_done_callback(lambda _: second.cancel("from a callback"))
        assert same(third, **one(2))
        with pytest.raises(Cancelled, match="from a callback"):
            second.result(TIMEOUT)


def test_a_callback_that_cannot_be_called_is_refused():
    with running(1) as (_, engine):
        handle = engine.submit(spec(), **one(1))
        for told in (5, None, "print"):
            with pytest.raises(ValueError, match=f"told={told!r}: give a function of the handle"):
                handle.add_done_callback(told)
        assert same(handle, **one(1))
