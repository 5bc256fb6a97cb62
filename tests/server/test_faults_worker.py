"""Signals to the process that has the device: what was accepted is made, and with the same bits."""

import signal

import pytest
from fault_load import Load
from served import AGAIN, serving, state, until

FLAGS = ("--model", "faulty=fault_networks:faulty", "--capacity", "4", "--batch", "fixed")
ENDS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)
KEPT = (signal.SIGTERM, signal.SIGINT)  # a terminal and a service manager send these to all


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("worker"), *FLAGS) as server:
        yield server
        server.signal(signal.SIGTERM, "parent")
        assert server.wait_ended() == 0
        server.check_nothing_left()


def replaced(server, number, load):
    """The worker gets a signal that ends it: another takes its place, and nothing is lost."""
    (worker,) = server.workers()
    before = server.counts().get("worker_restarts_total", 0)
    server.signal(number, "worker")
    server.wait_unready()
    took = server.wait_ready()
    print(f"{signal.Signals(number).name}: ready again after {took:.1f} s")
    assert server.counts()["worker_restarts_total"] == before + 1
    if load is not None:
        load.check_all_made()
    Load(server, 1, steps=2).check_all_made()
    assert state(worker) == "X" and len(server.workers()) == 1
    server.wait_idle()


@pytest.mark.parametrize("number", ENDS[:2], ids=lambda n: n.name)
def test_a_worker_that_ends_under_load(server, number):
    replaced(server, number, Load(server))


def test_a_worker_that_ends_idle(server):
    replaced(server, signal.SIGKILL, None)


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [False, True], ids=["idle", "loaded"])
@pytest.mark.parametrize("number", ENDS, ids=lambda n: n.name)
def test_every_signal_that_ends_a_worker(server, number, loaded):
    replaced(server, number, Load(server) if loaded else None)


@pytest.mark.parametrize("loaded", [False, True], ids=["idle", "loaded"])
@pytest.mark.parametrize("number", KEPT, ids=lambda n: n.name)
def test_a_signal_that_is_for_the_server(server, number, loaded):
    """It is the server that drains: a worker goes on until it is told."""
    load = Load(server, 2) if loaded else None
    (worker,) = server.workers()
    server.signal(number, "worker")
    if load is not None:
        load.check_all_made()
    Load(server, 1, steps=2).check_all_made()
    assert server.workers() == [worker]


def test_a_worker_that_is_stopped_for_a_moment_goes_on(server):
    load = Load(server, 2)
    (worker,) = server.workers()
    server.signal(signal.SIGSTOP, "worker")
    until(lambda: state(worker) == "T", AGAIN)
    server.signal(signal.SIGCONT, "worker")
    load.check_all_made()
    assert server.workers() == [worker]


@pytest.mark.slow
def test_a_worker_that_ends_again_and_again(server):
    """Requests that meet two ends are made a third time; those that come then are made."""
    load = Load(server, 1, steps=400)
    for _ in range(2):
        server.wait_ready()
        until(lambda: server.counts()["requests_running"] == 1, AGAIN, server.said)
        server.signal(signal.SIGKILL, "worker")
        server.wait_unready()
    load.check_all_made()
    server.wait_idle()
