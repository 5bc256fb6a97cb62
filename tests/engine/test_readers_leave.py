"""A reader of events that has seen enough: nothing more is made for it, and the request goes on."""

import asyncio
import threading

import torch

from diffusion_engine import Engine, Sampler, ScoreNetwork
from diffusion_engine.processes import VP

TIMEOUT = 60
SPEC = {"solver": "ddim", "steps": 6}


class Held:
    """A network that waits in its second call until it may go on."""

    def __init__(self):
        self.calls, self.second, self.go = 0, threading.Event(), threading.Event()
        self.network = ScoreNetwork(self.half, VP(), (1, 4, 4))

    def half(self, x, t):
        self.calls += 1
        if self.calls == 2:
            self.second.set()
            assert self.go.wait(TIMEOUT)
        return 0.5 * x


def test_who_left_is_told_nothing_and_the_request_is_done():
    held = Held()
    with Engine(held.network, 2, probe=False) as engine:
        handle = engine.submit(SPEC, seeds=[3], preview=1)
        with handle.events() as events:
            assert held.second.wait(TIMEOUT)
            assert handle.watched
        assert not handle.watched and list(events) == []
        held.go.set()
        made = handle.result(TIMEOUT).samples
        assert list(events) == []
    assert torch.equal(made, Sampler(held.network, "ddim", 6).sample(seeds=[3]).samples)


def test_another_reader_stays():
    held = Held()
    with Engine(held.network, 2, probe=False) as engine:
        handle = engine.submit(SPEC, seeds=[3], preview=1)
        stays, leaves = handle.events(), handle.events()
        assert held.second.wait(TIMEOUT)
        leaves.close()
        assert handle.watched
        held.go.set()
        kinds = [event.kind for event in stays]
    assert kinds[-1] == "done" and kinds.count("preview") >= 4


def test_closing_wakes_a_thread_and_a_task_that_wait_for_the_next_event():
    held = Held()
    with Engine(held.network, 2, probe=False) as engine:
        handle = engine.submit(SPEC, seeds=[3])
        assert held.second.wait(TIMEOUT)
        events, seen = handle.events(), []
        reader = threading.Thread(target=lambda: seen.extend(events))
        reader.start()
        events.close()
        reader.join(TIMEOUT)
        assert not reader.is_alive()

        async def read():
            others = handle.events()
            task = asyncio.create_task(anext_all(others))
            await asyncio.sleep(0)
            others.close()
            await asyncio.wait_for(task, TIMEOUT)

        asyncio.run(read())
        held.go.set()
        handle.result(TIMEOUT)


async def anext_all(events):
    return [event async for event in events]
