"""`Supervisor`: what workers make over their sockets has the bits of a Sampler alone."""

import asyncio
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import worker_cases as cases
from worker_cases import asked, made, supervised, supervisor, until

from diffusion_engine.workers import process
from diffusion_engine.workers.errors import (
    Failed,
    Full,
    GivenUp,
    NotReady,
    ServiceError,
    TooLarge,
)
from diffusion_engine.workers.supervisor import Supervisor

X = np.linspace(-1, 1, 2 * 32, dtype=np.float32).reshape(2, 2, 4, 4)
SLOW = {"spec": {"solver": "ddim", "steps": 900}, "condition": [5]}


@pytest.fixture(scope="module")
def served():
    """A function of do(service), on a service for all tests here."""
    with supervisor(cases.MOODY, ("cpu", "cpu"), max_cost=1000, max_queue=60) as (service, runner):
        yield lambda do: runner.run(asyncio.wait_for(do(service), 120))


def states(service):
    return [worker["engine"] for worker in service.snapshot()["workers"]]


def test_what_comes_back_on_two_devices_and_with_tensors(served):
    each = [asked(number) for number in range(30)]
    each.append(asked(31, id="x", tensors={"x": X}, start=0.5))
    each.append(asked(31, id="y", tensors={"mask": np.eye(4, dtype=np.float32), "known": X}))

    async def do(service):
        results = await asyncio.gather(*(made(service, one) for one in each))
        await until(lambda: all(one.get("done", 0) > 1 for one in states(service)))
        return results, service.snapshot(), dict(service.models)

    results, seen, models = served(do)
    for request, result in zip(each, results, strict=True):
        assert cases.equal(result, request)
        assert 0.0 <= result.queued <= result.seconds
    assert seen["finished"]["done"] >= 32 and seen["restarts"] == {}
    assert models["tiny"].shape == [2, 4, 4] and models["tiny"].classes == 10


def test_events_and_previews_of_who_reads_from_the_start_and_of_who_comes_later(served):
    async def do(service):
        early = await service.submit(asked(0, preview=2))
        told = [told async for told in early.events()]
        late = await service.submit(asked(0, **SLOW))
        await until(lambda: late.status == "running")
        seen = [told async for told in late.events(4)]
        over = [told.kind async for told in early.events()]
        return told, seen, over, (early.rows, early.cost, early.status)

    told, seen, over, said = served(do)
    kinds = [one.kind for one in told]
    assert kinds[0] == "queued" and kinds[-1] == "done" and "started" in kinds
    assert all(one.denoised.shape == (2, 4, 4) for one in told if one.kind == "preview")
    assert "preview" in kinds and said == (5, 5, "done")
    assert [one.kind for one in seen][:2] == ["queued", "started"]
    assert seen[-1].kind == "done" and any(one.kind == "row" for one in seen)
    assert over == ["queued", "started", "done"]


WRONG = {
    "an unknown model": {"model": "other"},
    "an unknown key": {"spec": {"solver": "ddim", "stepz": 3}},
    "an unknown class": {"condition": [77]},
    "a deadline that has passed": {"deadline": -1.0},
    "a priority that is none": {"priority": float("nan")},
    "a negative preview": {"preview": -1},
    "no seeds": {"seeds": []},
}


def test_what_does_not_suit_is_refused_quickly_behind_a_long_queue(served):
    async def do(service):
        queued = [await service.submit(asked(0, **SLOW)) for i in range(40)]
        clock = asyncio.get_running_loop().time
        for wrong in WRONG.values():
            began = clock()
            with pytest.raises(ValueError) as caught:
                await service.submit(asked(0, **wrong))
            assert not isinstance(caught.value, TooLarge) and clock() - began < 5.0
        with pytest.raises(TooLarge, match="at most 1000"):
            await service.submit(asked(0, spec={"solver": "ddim", "steps": 1000}))
        with pytest.raises(ValueError, match="is here already"):
            await service.submit(asked(0, id=queued[0].id))
        assert service.snapshot()["waiting"] > 0
        assert queued[-1].rows == 901 and queued[-1].status == "queued"
        return [request.cancel("enough") for request in queued]

    assert served(do)


def test_the_queue_has_an_end(served):
    async def do(service):
        first = [await service.submit(asked(0, **SLOW)) for i in range(60)]
        with pytest.raises(Full) as caught:
            await service.submit(asked(0))
        assert caught.value.retry_after > 0
        for request in first:
            request.cancel("enough")
        return (await made(service, asked(0))).seeds

    assert served(do) == [0]


def test_cancel_wherever_it_is(served):
    async def do(service):
        running = [await service.submit(asked(0, **SLOW)) for i in range(24)]
        await until(lambda: running[0].status == "running")
        waiting = running[-1]
        assert waiting.status == "queued" and waiting.cancel("of the queue")
        assert running[0].cancel("of the worker") and not running[0].cancel("twice")
        unknown = asked(0, spec={"solver": "ddim", "steps": 77})
        looking = asyncio.create_task(service.submit(unknown))
        await asyncio.sleep(0)
        looking.cancel()
        for request, said in ((waiting, "of the queue"), (running[0], "of the worker")):
            assert request.status == "cancelled"
            with pytest.raises(GivenUp, match=said):
                await request.result()
            assert [told.kind async for told in request.events()][-1] == "cancelled"
        with pytest.raises(asyncio.CancelledError):
            await looking
        for request in running:
            request.cancel("all")
        fine = asked(1)
        assert cases.equal(await made(service, fine), fine)
        await until(lambda: not any(engine["occupied"] for engine in states(service)))
        return service.snapshot()

    seen = served(do)
    assert seen["waiting"] == seen["running"] == 0 and not any(
        one["requests"] for one in seen["workers"]
    )


def test_a_deadline_in_the_queue_and_at_the_worker(served):
    async def do(service):
        late = [await service.submit(asked(0, deadline=1.0, **SLOW)) for i in range(12)]
        for request in late:
            with pytest.raises(GivenUp):
                await request.result()
        return True

    assert served(do)


def test_failures_are_sentences(served):
    async def do(service):
        said = []
        for label in (7, 6):
            with pytest.raises(Failed) as caught:
                await made(service, asked(0, condition=[label]))
            said.append(str(caught.value))
        assert cases.equal(await made(service, asked(0)), asked(0))
        return said, service.snapshot()["restarts"]

    (raised, infinite), restarts = served(do)
    assert raised == "the network raised RuntimeError" and "not finite" in infinite
    assert restarts == {}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("worker_cases:absent", "no weights here"),
        ("worker_cases:small", "TypeError"),
        ("nowhere.safetensors", "nowhere"),
    ],
)
def test_a_model_that_cannot_be_served_is_said_at_the_start(model, said):
    with pytest.raises(ServiceError, match=said):
        supervised(None, {"a": model})


def test_options_that_make_no_sense():
    for wrong in ({"capacity": 0}, {"capacitee": 2}, {"device": "cpu"}):
        with pytest.raises(ValueError):
            Supervisor({"a": "digits"}, options=wrong)
    for models, devices in (({}, ("cpu",)), ({"a": "digits"}, ())):
        with pytest.raises(ValueError, match="at least one"):
            Supervisor(models, devices)


def test_the_end_drains_and_then_cancels():
    async def do(service):
        short = await service.submit(asked(0))
        closing = asyncio.create_task(service.close(60.0))
        await asyncio.sleep(0)
        with pytest.raises(NotReady, match="ends") as caught:
            await service.submit(asked(1))
        await closing
        return cases.equal(await short.result(), asked(0)), caught.value.retry_after

    assert supervised(do) == (True, None)

    async def cut(service):
        long = await service.submit(asked(0, **SLOW))
        await service.close(0.1)
        with pytest.raises(GivenUp, match="ended before"):
            await long.result()
        return True

    assert supervised(cut, cases.MOODY)


def test_the_socket_is_for_the_worker_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with process._listening() as (_, path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("long" * 40)))
    with process._listening() as (_, path):  # in a place with a shorter name
        assert len(path) < 108
    with pytest.raises(ServiceError, match="TMPDIR"):
        process._folder(["/" + "x" * 100])
    with pytest.raises(KeyError), process._listening() as (_, path):
        raise KeyError
    assert not Path(path).exists()
