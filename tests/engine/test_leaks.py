"""What came and went leaves no seat, thread, tensor or memory behind."""

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from engine_cases import TIMEOUT, Network, one, running, spec

from diffusion_engine.engine import Cancelled

ROOT = Path(__file__).parents[2]
GROWTH = 20 << 20  # what the memory of a process may grow by


def cancelled(count, timeout):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "helpers")])
    done = subprocess.run(
        [sys.executable, "tests/helpers/engine_leaks.py", str(count)], cwd=ROOT, timeout=timeout,
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(found["ended"].values()) == count
    assert found["submitted"] == found["done"] + found["cancelled"] == count + 2 * 1000 + 400
    assert found["ended"]["cancelled"] > 0.7 * count and found["queued"] > 900
    assert (found["failed"], found["threads"], found["tensors"], found["closed"]) == (0, 0, 0, True)
    assert found["grown"] <= GROWTH


def test_random_cancels():
    cancelled(1000, 280)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_random_cancels():
    cancelled(10000, 880)


def test_the_cancelled_wait_for_no_seat():
    """They are let go of at the next row, though the one before them in the queue has no seat yet."""
    waiting, others, network = [], [], Network()

    def run(x, label, y):
        if len(network.calls) == 1:  # they have come by now
            waiting.append(len(lane().waiting))
            for handle in others[1:]:
                handle.cancel()
        if len(network.calls) == 2:
            waiting.append(len(lane().waiting))
        return network.run(x, label, y)

    def lane():
        (found,) = next(iter(engine._served.values())).lanes.values()
        return found

    network.score = network.score.with_module(run)
    with running(1, network) as (_, engine):
        with network.held(engine, 4):
            others += [engine.submit(spec(), **one(2), priority=1)]
            others += [engine.submit(spec(), **one(3)) for _ in range(200)]
        others[0].result(TIMEOUT)
    assert waiting == [201, 1]


@pytest.fixture
def no_collector():
    """What is freed is freed at once."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_dropped_handle_frees_its_samples(no_collector):
    with running(2) as (_, engine):
        for asked in (True, False):
            handle = engine.submit(spec(), seeds=[1, 2, 3], condition=[1, 2, 3])
            made = handle.result(TIMEOUT).samples if asked else None
            assert asked or [event.kind for event in handle.events()][-1] == "done"
            refs = [weakref.ref(handle)]
            refs += [weakref.ref(sample) for sample in handle_samples(handle)] if not asked else []
            refs += [weakref.ref(made)] if asked else []
            del handle, made
            engine.submit(spec(), **one(4)).result(TIMEOUT)  # the engine has turned to others
            assert [ref() for ref in refs] == [None] * len(refs)


def handle_samples(handle):
    return [
        t for t in gc.get_referents(handle._build.__self__.samples) if isinstance(t, torch.Tensor)
    ]


def test_a_kept_handle_holds_its_result_alone(no_collector):
    with running(2) as (network, engine):
        x = torch.randn(2, 3, 5, 7)
        with network.held(engine):
            request = {"x": x, "start": 0.5, "seeds": [1, 2], "condition": [1, 2]}
            done, gone, failed = (engine.submit(spec(steps=2), **request) for _ in range(3))
            here = list(engine._loop.here.values())[-3:]
            refs = [weakref.ref(ticket) for ticket in here]
            refs += [weakref.ref(ticket.request.x) for ticket in here]
            del here
            assert gone.cancel()
            network.nan.add(2)
        for handle in (failed, done):
            with pytest.raises(Exception, match="not finite"):
                handle.result(TIMEOUT)
        network.nan.clear()
        done = engine.submit(spec(steps=2), **request)
        (ticket,) = engine._loop.here.values() or [None]
        refs += [weakref.ref(ticket)] if ticket is not None else []
        del ticket
        made = done.result(TIMEOUT)
        with pytest.raises(Cancelled):
            gone.result(TIMEOUT)
        engine.submit(spec(), **one(4)).result(TIMEOUT)
        assert [ref() for ref in refs] == [None] * len(refs)
        assert done.result() is made
