"""Signals to the process that has the sockets and the queue, and to all processes of a server at once."""

import asyncio
import signal
import time
from types import SimpleNamespace

import pytest
from fake_service import FakeService
from fault_load import Load
from served import serving, state, until

from diffusion_engine.client import Lost
from diffusion_engine.server.front import Front
from diffusion_engine.server.run import _drained
from diffusion_engine.server.settings import Settings
from diffusion_engine.workers.messages import Asked

FLAGS = ("--model", "faulty=fault_networks:faulty", "--capacity", "4")
DRAINS, ENDS = (signal.SIGTERM, signal.SIGINT), (signal.SIGKILL,)


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path, *FLAGS) as server:
        yield server


def drains(server, number, whom, loaded):
    load = Load(server) if loaded else None
    server.signal(number, whom)
    if load is not None:
        until(lambda: "serving" in server.said(), 1)
        assert not server.client(retries=0).ready()
        load.check_all_made()
    assert server.wait_ended() == 0
    server.check_nothing_left()
    assert not server.ready_file.exists()


def test_a_signal_to_all_lets_end_what_was_accepted(server):
    """As a terminal and a service manager send it."""
    drains(server, signal.SIGTERM, "tree", True)


def test_a_signal_to_the_server_lets_end_what_was_accepted(server):
    drains(server, signal.SIGINT, "parent", True)


def test_a_request_that_is_looked_at_when_the_signal_comes_is_made():
    class Slow(FakeService):
        async def submit(self, asked):
            await asyncio.sleep(0.2)
            return await super().submit(asked)

    async def run():
        service = Slow()
        await service.start()
        front = Front(service, Settings())
        asked = Asked(id="a", model="digits", spec={}, seeds=[1])
        taking = asyncio.create_task(front.take(asked, service.about["digits"]))
        await asyncio.sleep(0.01)
        draining = asyncio.create_task(_drained(front, 5.0, SimpleNamespace(count=1)))
        entry = await taking
        assert (await entry.running.result()).seeds == [1]
        assert not draining.done()
        front.requests.end(entry)
        assert await draining is True

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [False, True], ids=["idle", "loaded"])
@pytest.mark.parametrize("whom", ["parent", "tree"])
@pytest.mark.parametrize("number", DRAINS, ids=lambda n: n.name)
def test_every_signal_that_asks_it_to_end(server, number, whom, loaded):
    drains(server, number, whom, loaded)


def killed(server, whom, loaded):
    load = Load(server, steps=900) if loaded else None
    server.signal(signal.SIGKILL, whom)
    assert server.wait_ended() == -signal.SIGKILL
    server.check_nothing_left()
    if load is not None:
        samples, errors = load.wait(30)
        assert all(isinstance(error, Lost) for error in errors.values()) and not samples


def test_a_server_that_is_killed_takes_its_worker_with_it(server):
    killed(server, "parent", True)


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [False, True], ids=["idle", "loaded"])
@pytest.mark.parametrize("whom", ["parent", "tree"])
def test_every_way_to_be_killed(server, whom, loaded):
    killed(server, whom, loaded)
    server.start()
    server.ready_file.unlink(missing_ok=True)  # nobody could
    server.wait_started()
    Load(server, 2, steps=5).check_all_made()


@pytest.mark.parametrize("whom", ["parent", "tree"])
def test_a_server_that_is_stopped_goes_on_where_it_was(server, whom):
    """As a machine that sleeps does; the worker that ran meanwhile is not taken for a dead one."""
    worker, load = server.workers(), Load(server, steps=100)
    stopped = server.signal(signal.SIGSTOP, whom)
    until(lambda: all(state(pid) == "T" for pid in stopped), 10)
    time.sleep(4.0)
    for pid in stopped[::-1]:
        server.resume(pid)
    load.check_all_made()
    assert server.workers() == worker
    server.wait_idle()


def test_a_second_signal_does_not_wait(server):
    load = Load(server, steps=1000)
    server.signal(signal.SIGTERM, "parent")
    time.sleep(0.3)
    server.signal(signal.SIGTERM, "parent")
    assert server.wait_ended(20) == 1
    server.check_nothing_left()
    samples, errors = load.wait(30)
    assert len(errors) == load.count and not samples
