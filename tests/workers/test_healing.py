"""Workers that end, hang and are stopped: what was accepted is made again with the same bits."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import worker_cases as cases
from worker_cases import asked, made, supervised, supervisor, until

from diffusion_engine.workers.errors import Failed, NotReady, Quarantined, WorkerLost

SLOWLY = {"spec": {"solver": "ddim", "steps": 20}}


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


CLOCK = Clock()


@pytest.fixture(scope="module")
def served():
    """A function of do(service), on a service of one worker for all tests here."""
    said = {"hang_s": 1.5, "retries": 1, "clock": CLOCK, "options": {"capacity": 4}}
    with supervisor(cases.MOODY, **said) as (service, runner):

        async def ready(do):
            await until(lambda: service.objection() is None)
            return await do(service)

        yield lambda do: runner.run(asyncio.wait_for(ready(do), 120))


def pid(service):
    return service.snapshot()["workers"][0]["process"]


def load(count=8):
    """Requests that take a while, so that a worker has some when it ends."""
    return [asked(i, condition=[5] * (1 + i % 3), **SLOWLY) for i in range(count)]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (signal.SIGKILL, "exited"),
        (signal.SIGSTOP, "stopped"),
        pytest.param(signal.SIGSEGV, "exited", marks=pytest.mark.slow),
    ],
)
def test_what_was_at_a_worker_that_is_lost_is_made_again(served, number, kind):
    async def do(service):
        before, first = service.snapshot()["restarts"].get(kind, 0), pid(service)
        running = [await service.submit(one) for one in load()]
        told = asyncio.ensure_future(events(running[0]))
        await until(lambda: running[0].status == "running")
        os.kill(first, number)
        await until(lambda: service.objection() is not None)
        with pytest.raises(NotReady, match="is replaced") as caught:
            await service.submit(asked(0))
        assert caught.value.retry_after > 0
        results = await asyncio.gather(*(one.result() for one in running))
        for one, result in zip(running, results, strict=True):
            assert cases.equal(result, one.asked, cases.by_class)
        assert service.objection() is None and pid(service) != first
        assert not Path(f"/proc/{first}").exists()
        assert service.snapshot()["restarts"][kind] == before + 1
        return await told

    kinds = served(do)
    assert kinds.index("started") < kinds.index("restarted") and kinds[-1] == "done"


async def events(running):
    return [told.kind async for told in running.events()]


def test_a_worker_that_is_lost_when_it_has_nothing_to_do(served):
    async def do(service):
        first = pid(service)
        os.kill(first, signal.SIGKILL)
        await until(lambda: pid(service) not in (None, first))
        fine = asked(1)
        assert cases.equal(await made(service, fine), fine)

    served(do)


def test_signals_to_the_group_are_the_parents(served):
    async def do(service):
        first = pid(service)
        running = [await service.submit(one) for one in load(4)]
        os.kill(first, signal.SIGTERM)
        os.kill(first, signal.SIGINT)
        for one in running:
            assert cases.equal(await one.result(), one.asked, cases.by_class)
        assert pid(service) == first

    served(do)


@pytest.mark.parametrize("label", [9, 8], ids=["exits", "hangs"])
def test_who_ends_workers_is_refused_and_those_beside_are_done(served, label):
    async def do(service):
        beside = load(3)
        guilty = [asked(0, condition=[label], seeds=[seed]) for seed in (7, 8)]
        tasks = [asyncio.ensure_future(made(service, one)) for one in (*beside, *guilty)]
        for one, task in zip(beside, tasks, strict=False):
            assert cases.equal(await task, one, cases.by_class)
        first, second = await asyncio.gather(*tasks[3:], return_exceptions=True)
        assert {type(first), type(second)} == {WorkerLost, Quarantined}
        await until(lambda: service.objection() is None)
        with pytest.raises(Quarantined) as caught:
            await service.submit(asked(0, condition=[label], seeds=[99], key="another"))
        assert 0 < caught.value.retry_after <= 3600
        assert cases.equal(await made(service, again := asked(0, condition=[1])), again)
        assert service.snapshot()["quarantined"] == 1
        CLOCK.now += 3601
        assert service.snapshot()["quarantined"] == 0

    served(do)


def test_an_error_that_stays_with_the_device_ends_the_worker(served):
    async def do(service):
        before = service.snapshot()["restarts"].get("broken", 0)
        with pytest.raises(WorkerLost):
            await made(service, asked(0, condition=[7], guidance=2.0))
        assert service.snapshot()["restarts"]["broken"] == before + 2

    served(do)


def test_a_parent_that_did_not_run_itself_judges_nobody(served):
    async def do(service):
        first = pid(service)
        running = [await service.submit(one) for one in load(2)]
        time.sleep(3.0)
        for one in running:
            await one.result()
        await asyncio.sleep(0.6)
        assert pid(service) == first

    served(do)


def test_memory_without_end_fails_the_request_alone():
    async def do(service):
        first = pid(service)
        running = [await service.submit(asked(0, condition=[c], **SLOWLY)) for c in (1, 9, 2)]
        for one in running[::2]:
            assert cases.equal(await one.result(), one.asked, cases.greedy)
        with pytest.raises(Failed, match="memory ran out"):
            await running[1].result()
        assert pid(service) == first and service.snapshot()["restarts"] == {}

    supervised(do, {"tiny": "worker_cases:hungry"}, memory=3 << 30)


def test_a_worker_that_does_not_start_again_is_tried_again(tmp_path, monkeypatch):
    flag = tmp_path / "there"
    flag.touch()
    monkeypatch.setenv("WORKER_CASES_FLAG", str(flag))

    async def do(service):
        flag.unlink()
        running = await service.submit(asked(0, condition=[5], **SLOWLY))
        os.kill(pid(service), signal.SIGKILL)
        await until(lambda: "does not start again" in (service.objection() or ""))
        assert str(tmp_path) not in service.objection()
        flag.touch()
        assert cases.equal(await running.result(), running.asked, cases.by_class)

    supervised(do, {"tiny": "worker_cases:flagged"})


CHILD = """
import asyncio, sys
from diffusion_engine.workers.supervisor import Supervisor

async def main():
    service = Supervisor({"tiny": "worker_cases:moody"}, ("cpu", "cpu"))
    await service.start()
    print(*(worker["process"] for worker in service.snapshot()["workers"]), flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_workers_end_with_their_parent(tmp_path):
    path = os.pathsep.join([str(Path(cases.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        try:
            workers = [int(one) for one in parent.stdout.readline().split()]
            assert len(workers) == 2 and not list(tmp_path.glob("diffusion-engine-*"))
        finally:
            parent.kill()
    began = time.monotonic()
    while any(Path(f"/proc/{one}").exists() for one in workers):
        assert time.monotonic() - began < 30
        time.sleep(0.01)


def test_what_was_measured_is_handed_to_the_next_worker(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DIFFUSION_ENGINE_CACHE", str(folder))

    async def do(service):
        one = asked(0, model="digits", spec={"solver": "unipc", "steps": 3}, condition=[3])
        before = await made(service, one)
        known, about = dict(service._choices), dict(service.models)
        for path in folder.rglob("*.json"):  # what the folder says now is another choice
            path.write_text('{"1": 2, "2": 2, "4": 2, "8": 2, "16": 2}')
        os.kill(pid(service), signal.SIGKILL)
        await until(lambda: service.objection() is not None)
        await until(lambda: service.objection() is None)
        after = await made(service, one)
        return before, after, known, service._choices, about

    options = {"capacity": 2, "threads": "measured", "accelerate": True, "batch": "fixed"}
    before, after, known, kept, about = supervised(do, {"digits": "digits"}, options=options)
    assert {name.partition("/")[0] for name in known} == {"forms", "threads"} and kept == known
    assert before.samples.tobytes() == after.samples.tobytes()
    for key in ("network_form", "threads", "bucket"):
        assert before.recipe[key] == after.recipe[key]
    assert about["digits"].form["network_form"] == before.recipe["network_form"]
