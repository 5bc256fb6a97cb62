"""Requests from threads and tasks: each gets what it gets alone."""

import asyncio
import sys
import threading
import time

import pytest
import torch
from engine_cases import TIMEOUT, Network, alone, one, plain, running, same, spec
from executor_cases import SHAPE
from tape import launches_are_recorded, taping

from diffusion_engine import Decoder, ScoreNetwork
from diffusion_engine.engine import Cancelled, Engine, EngineClosed
from diffusion_engine.processes import VP
from diffusion_engine.zoo import load_network

__all__ = ["launches_are_recorded"]
SOLVERS = ("ddim", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc")


class Pointwise(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 1)

    def forward(self, x, label):
        return self.conv(x)


def test_sixteen_threads():
    wrong, errors = [], []
    start = threading.Barrier(16)

    def work(i):
        start.wait(TIMEOUT)
        try:
            for k in range(4):
                solver, steps = SOLVERS[(i + k) % 5], 1 + (i * k) % 6
                handle = engine.submit(spec(solver, steps), **one(i % 10, 100 * i + k))
                if not same(handle, solver, steps, **one(i % 10, 100 * i + k)):
                    wrong.append((i, k))
        except Exception as error:
            errors.append(error)

    with running(8) as (_, engine):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
        assert engine.snapshot()["done"] == 64
    assert not wrong and not errors


def test_a_hundred_tasks():
    async def ask(engine, i):
        solver, steps = SOLVERS[i % 5], 1 + i % 4
        made = await engine.submit(spec(solver, steps), **one(i % 10, i))
        return torch.equal(made.samples, alone(solver, steps, **one(i % 10, i)))

    async def tasks(engine):
        return await asyncio.wait_for(
            asyncio.gather(*(ask(engine, i) for i in range(100))), TIMEOUT
        )

    with running(8) as (_, engine):
        assert all(asyncio.run(tasks(engine)))


def test_a_cancelled_task_cancels_its_request():
    async def cancelled(engine):
        handle = engine.submit(spec(), **one(1))
        task = asyncio.ensure_future(handle)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return handle

    async def late(engine):
        handle = engine.submit(spec(), **one(2))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(handle, 0.01)
        return handle

    with running(1) as (network, engine), network.held(engine):
        for how in (cancelled, late):
            handle = asyncio.run(how(engine))
            assert handle.status == "cancelled"
            with pytest.raises(Cancelled, match="the task that awaited it was cancelled"):
                handle.result(TIMEOUT)


def test_a_task_whose_request_is_cancelled_goes_on():
    async def wait(engine):
        handle = engine.submit(spec(), **one(1))
        task = asyncio.ensure_future(handle)
        await asyncio.sleep(0)
        handle.cancel("it was for nothing")
        with pytest.raises(Cancelled, match="it was for nothing"):
            await task
        return task.cancelled()

    async def both(engine):
        handle = engine.submit(spec(), **one(1))
        task = asyncio.ensure_future(handle)
        await asyncio.sleep(0)
        handle.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    with running(1) as (network, engine), network.held(engine):
        assert not asyncio.run(wait(engine))
        assert asyncio.run(both(engine))


def test_an_awaited_decoder_does_not_hold_the_loop():
    at = []

    def decode(z):
        at.append(threading.current_thread())
        return z

    network = Network()
    decoder = Decoder(decode)

    async def wait(engine):
        return await engine.submit(spec(), **one(1))

    with Engine(network.score, 2, decoder=decoder) as engine:
        made = asyncio.run(wait(engine))
        assert at[-1] is not threading.current_thread()
        assert torch.equal(made.latents, alone(**one(1)))
        engine.submit(spec(), **one(1)).result(TIMEOUT)
        assert at[-1] is threading.current_thread()


def test_status_through_life():
    with running(1) as (network, engine):
        with network.held(engine) as first:
            second, third = (engine.submit(spec(), **one(i)) for i in (1, 2))
            assert (first.status, second.status, third.status) == ("running", "queued", "queued")
            assert third.cancel() and third.status == "cancelled" and third.cancel()
            with pytest.raises(TimeoutError):
                second.result(0.01)
            assert second.status == "queued"
        second.result(TIMEOUT)
        assert (first.status, second.status, third.status) == ("done", "done", "cancelled")
        assert not second.cancel() and second.status == "done"
        network.raises[3] = RuntimeError("three")
        failed = engine.submit(spec(), **one(3))
        with pytest.raises(RuntimeError, match="three"):
            failed.result(TIMEOUT)
        assert failed.status == "failed"
        found = engine.snapshot()
        counts = [found[name] for name in ("submitted", "done", "cancelled", "failed", "occupied")]
        assert counts == [4, 2, 1, 1, 0]


def test_the_times_of_a_request_are_there_when_its_end_is_told():
    with running(2) as (network, engine):
        with network.held(engine):
            handle, seen = engine.submit(spec(steps=3), **one(1)), []
            handle.add_done_callback(lambda ended: seen.append(ended.times))
            time.sleep(0.05)
        handle.result(TIMEOUT)
        assert seen == [handle.times] and 0 < seen[0][0] < seen[0][1]
        assert seen[0][1] > 0.05


@pytest.mark.parametrize("batch", ["bucket", "fixed"])
def test_what_is_counted(batch):
    """Three samples of four steps in one batch: five rows, four of them with a call of all three."""
    with running(4, batch=batch) as (_, engine):
        engine.submit(spec(steps=4), seeds=[1, 2, 3], condition=[1, 2, 3]).result(TIMEOUT)
        found = engine.snapshot()
        room = 4 if batch == "bucket" else 8  # of guided samples, two entries each
        assert (found["rows"], found["seat_rows"]) == (5, 12)
        if batch == "bucket":
            assert (found["called"], found["padded"]) == (12, 0)
        else:
            assert (found["called"], found["padded"]) == (4 * room, 4 * (room - 3))
        assert found["captures"] == 0
        for name in ("queued_s", "row_s", "total_s"):
            assert found[name]["count"] == {"row_s": 5}.get(name, 1)
            assert found[name]["p50"] <= found[name]["p99"]


def test_a_snapshot_at_any_time():
    """While requests end and batches come to packings that are new."""
    done, seen = threading.Event(), []

    def look():
        while not done.is_set():
            try:
                engine.snapshot()
            except Exception as error:
                seen.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with running(8, max_queue=1024) as (_, engine):
            looking = threading.Thread(target=look)
            looking.start()
            for i in range(40):
                asked = (
                    spec(("ddim", "heun", "dpmpp_2m")[k % 3], 1 + (i + k) % 5) for k in range(8)
                )
                handles = [engine.submit(one_spec, **one(i % 9)) for one_spec in asked]
                for handle in handles:
                    handle.result(TIMEOUT)
            done.set()
            looking.join(TIMEOUT)
    finally:
        done.set()
        sys.setswitchinterval(before)
    assert not seen


def test_captures_are_counted(launches_are_recorded):
    network = Network()
    network.score = network.score.with_module(plain)
    with Engine(network.score, 2, executor=taping(), probe=False) as engine:
        engine.submit(spec(steps=3), seeds=[1], condition=[1]).result(100)
        assert engine.snapshot()["captures"] > 0


def test_more_samples_than_seats():
    request = {"seeds": range(11), "condition": [i % 10 for i in range(11)]}
    with running(3) as (network, engine):
        handle = engine.submit(spec(steps=3), **request)
        assert (handle.samples, handle.rows) == (11, 4)
        assert same(handle, steps=3, **request)
        assert max(map(len, network.calls)) == 3
        made = handle.result()
        assert made is handle.result() and made.seeds == list(range(11)) and all(made.finite)
        assert made.nfe == 3 and made.evaluations == 33


def test_requests_of_other_kinds_have_batches_of_their_own():
    noise = torch.randn(3, 1, 1, *SHAPE)
    mask = (torch.arange(105) % 2).view(1, *SHAPE)
    region = {"mask": mask, "known": torch.ones(1, *SHAPE)}
    kinds = [{}, {"noise": noise}, region, {"noise": "brownian"}]
    with running(2) as (_, engine):
        handles = [
            engine.submit(spec("ddpm", 2), **one(k, seed), **kind)
            for seed in range(4)
            for k, kind in enumerate(kinds)
        ]
        for i, handle in enumerate(handles):
            assert same(handle, "ddpm", 2, **one(i % 4, i // 4), **kinds[i % 4])
        assert engine.snapshot()["lanes"] == 4


def test_a_request_that_is_wider_than_the_others():
    """Of more entries a call than the batch of those has seats gets a batch of its own."""
    compose = [([1], 1.0), ([2], 0.5), ([3], -0.25)]
    with running(1) as (_, engine):
        wide = engine.submit(spec(steps=2), seeds=[1], compose=compose)
        narrow = engine.submit(spec(steps=2), **one(1))
        assert same(narrow, steps=2, **one(1))
        assert same(wide, steps=2, seeds=[1], compose=compose)
        assert engine.snapshot()["lanes"] == 2


def test_what_was_given_is_the_callers():
    x, y = torch.randn(2, *SHAPE), torch.tensor([3, 4])
    known, mask = torch.randn(2, *SHAPE), (torch.randn(2, *SHAPE) > 0).float()
    given = {"x": x, "start": 0.5, "condition": y, "known": known, "mask": mask}
    want = alone(steps=3, seeds=[5, 6], **given)
    with running(1) as (network, engine):
        with network.held(engine):
            handle = engine.submit(spec(steps=3), seeds=[5, 6], **given)
            for tensor in (x, y, known, mask):
                tensor.zero_()
        assert torch.equal(handle.result(TIMEOUT).samples, want)


def test_work_between_rows_is_refused_after_the_end():
    network = Pointwise()
    score = ScoreNetwork(network, VP(), SHAPE)
    weights = {name: 2.0 * value for name, value in network.state_dict().items()}
    with Engine(score, 2) as engine:
        engine.submit("ddim", 1).result(TIMEOUT)
        engine.update_weights(weights)
        assert torch.equal(network.conv.weight, weights["conv.weight"])
        with pytest.raises(ValueError):
            engine.update_weights({"nothing": torch.zeros(1)})
        assert engine.submit("ddim", 1).result(TIMEOUT).finite == [True]
    with pytest.raises(EngineClosed, match="closed; make another"):
        engine.update_weights(weights)


@pytest.mark.parametrize("option", ["compile", "accelerate", "device", "self", "guidance"])
def test_an_option_of_a_solver_is_no_argument_of_a_sampler(option):
    with Engine(load_network("digits")) as engine, pytest.raises(ValueError, match=option):
        engine.submit({"solver": {"name": "ddim", "options": {option: True}}}, seeds=[1])
