"""How an engine ends: nothing that it took is lost, and no thread stays."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from engine_cases import TIMEOUT, Network, engine_of, one, running, same, spec, until

from diffusion_engine import ScoreNetwork
from diffusion_engine.engine import Cancelled, Engine, EngineClosed
from diffusion_engine.processes import VP

ROOT = Path(__file__).parents[2]


def engines():
    return [thread for thread in threading.enumerate() if thread.name == "engine"]


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = len(engines())
    yield
    until(lambda: len(engines()) <= before)


def test_idle():
    for drain in (True, False):
        engine = engine_of(Network(), 2)
        engine.close(drain)
        engine.close(not drain)
        with pytest.raises(EngineClosed, match="the engine is closed; make another"):
            engine.submit(spec(), **one(1))
    with pytest.raises(ValueError, match="drain=2"):
        engine.close(drain=2)


@pytest.mark.parametrize("drain", [True, False])
def test_under_load(drain):
    network = Network()
    engine = engine_of(network, 2)
    with network.held(engine) as first:
        handles = [engine.submit(spec(steps=3), **one(i)) for i in range(8)]
        closing = [threading.Thread(target=engine.close, args=(drain,)) for _ in range(3)]
        for thread in closing:
            thread.start()
        until(lambda: engine._loop.closing)
        with pytest.raises(EngineClosed):
            engine.submit(spec(), **one(1))
    for thread in closing:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    for i, handle in enumerate(handles):
        if drain:
            assert same(handle, steps=3, **one(i))
        else:
            with pytest.raises(Cancelled, match="closed before it was done"):
                handle.result(TIMEOUT)
    assert first.status == "done"  # in the row in which it was closed
    found = engine.snapshot()
    assert (found["occupied"], found["queued"], found["running"], found["networks"]) == (
        0,
        0,
        0,
        [],
    )
    assert found["done"] + found["cancelled"] == found["submitted"] == 9


def test_a_drain_that_becomes_an_end():
    network = Network()
    engine = engine_of(network, 1)
    with network.held(engine):
        handles = [engine.submit(spec(steps=1000), **one(i)) for i in range(3)]
        thread = threading.Thread(target=engine.close)
        thread.start()
        until(lambda: engine._loop.closing == "drain")
        other = threading.Thread(target=engine.close, args=(False,))
        other.start()
        until(lambda: engine._loop.closing == "now")
        engine._loop.let_go("drain")  # it does not become a drain again
    for one_thread in (thread, other):
        one_thread.join(TIMEOUT)
        assert not one_thread.is_alive()
    assert [handle.status for handle in handles] == ["cancelled"] * 3


def test_from_a_callback():
    network = Network()
    engine = engine_of(network, 2)
    with network.held(engine) as first:
        other = engine.submit(spec(steps=3), **one(1))
        first.add_done_callback(lambda _: engine.close())
    assert same(other, steps=3, **one(1))
    until(lambda: not engine._loop._thread.is_alive())
    with pytest.raises(EngineClosed):
        engine.submit(spec(), **one(1))


def test_an_error_within_a_with():
    network, handles = Network(), []
    with pytest.raises(ZeroDivisionError), engine_of(network, 1) as engine:
        handles += [engine.submit(spec(steps=1000), **one(i)) for i in range(3)]
        raise ZeroDivisionError
    assert [handle.status for handle in handles] == ["cancelled"] * 3


class Half(torch.nn.Module):
    def forward(self, x, label):
        return 0.5 * x


def test_the_users_module_is_given_back(monkeypatch):
    module = Half().train()
    with Engine(ScoreNetwork(module, VP(), (2,)), 2) as engine:
        engine.submit(spec()).result(TIMEOUT)
        assert not module.training
    assert module.training
    monkeypatch.setattr(engine, "objection", lambda: None)  # it was closed after the first look
    with pytest.raises(EngineClosed):
        engine.submit(spec())
    assert module.training


def test_a_module_is_given_back_by_an_engine_that_nobody_holds():
    """At once, though its thread never started, and nobody closed it."""
    module = Half().train()
    engine = Engine(ScoreNetwork(module, VP(), (2,)), 2)
    engine.probe(spec())
    assert engine._loop._thread is None and not module.training
    gc.disable()  # circles that it leaves are for later
    try:
        del engine
        assert module.training
    finally:
        gc.enable()


def test_an_engine_that_nobody_holds():
    """Its thread ends, when what it took is done."""
    network = Network()
    engine = engine_of(network, 2)
    with network.held(engine):
        handle = engine.submit(spec(steps=2), **one(1))
        thread = engine._loop._thread
        del engine
        gc.collect()
    assert same(handle, steps=2, **one(1))
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_a_fork():
    """The child is told that the engine stayed behind, and nothing in it waits."""
    with running(2) as (network, engine):
        with network.held(engine) as handle:
            read, write = os.pipe()
            child = os.fork()
            if not child:
                answer = b"it took a request"
                try:
                    engine.submit(spec(), **one(1))
                except EngineClosed as error:
                    answer = str(error).encode()
                finally:
                    engine.close()
                    os.write(write, answer)
                    os._exit(0)
            os.waitpid(child, 0)
            os.close(write)
            assert os.read(read, 200) == (
                b"an engine's thread does not follow a fork; make another in this process"
            )
            os.close(read)
        assert same(handle, **one(9, 1))


EXIT = """
import sys
sys.path[:0] = ["tests/helpers"]
from engine_cases import Network, one, spec
from diffusion_engine.engine import Engine
engine = Engine(Network().score, 4)
handles = [engine.submit(spec(steps=1000), **one(i % 10)) for i in range(40)]
handles[0].events(), next(e for e in handles[0].events() if e.kind == "row")
{end}
"""
ENDS = {
    "end": ("", 0),
    "error": ("raise ZeroDivisionError", 1),
    "thread": ("import threading; threading.Thread(target=handles[1].cancel).start()", 0),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_interpreter_ends(name):
    """With requests that run and wait."""
    end, code = ENDS[name]
    done = subprocess.run(
        [sys.executable, "-c", EXIT.format(end=end)],
        cwd=ROOT,
        timeout=100,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert ("ZeroDivisionError" in done.stderr) == (name == "error") and "Fatal" not in done.stderr
