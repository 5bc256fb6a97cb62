"""`Dispatch`: who goes where, and how it is found who ends workers; on workers that are played."""

import asyncio
from collections import Counter

import numpy as np
import pytest
import worker_cases as cases

from diffusion_engine.workers.dispatch import Dispatch
from diffusion_engine.workers.errors import GivenUp, Quarantined, WorkerLost
from diffusion_engine.workers.keeper import Keeper
from diffusion_engine.workers.messages import Told
from diffusion_engine.workers.quarantine import MOST, Quarantine, recipe
from diffusion_engine.workers.request import Request


class Played(Keeper):
    """A worker that notes what it is sent."""

    def __init__(self, ready=True):
        super().__init__("cpu", 4, None, None, None, None, 1.0)
        self.state, self.sent = "ready" if ready else "restarting", []

    def _send(self, message):
        self.sent.append(type(message).__name__)


class Stage:
    """Workers, what is dispatched to them, and all requests; `step` has the workers do what they have."""

    def __init__(self, workers=1, retries=2, guilty=lambda asked: False):
        self.workers = [Played() for _ in range(workers)]
        self.quarantine = Quarantine(3600.0, lambda: 0.0)
        self.dispatch = Dispatch(self.workers, retries, self.quarantine, 10.0)
        self.guilty, self.lost, self.met = guilty, 0, Counter()

    def add(self, asked):
        request = Request(asked, lambda r: None, lambda r, reason: None, self.dispatch.leave)
        self.dispatch.add(request)
        return request

    def step(self):
        for worker in self.workers:
            for name, request in list(worker.checking.items()):
                del worker.checking[name]
                request.keeper = None
                request.looked(5, 5)
                self.dispatch.looked(request)
            here = list(worker.running.values())
            self.met.update(request.id for request in here)
            if any(self.guilty(request.asked) for request in here):
                self.lost += 1
                worker.state = "restarting"
                self.dispatch.lost(worker)
                worker.state = "ready"
                self.dispatch.pump()
                continue
            for request in here:
                worker.over(request.id)
                request.fail(RuntimeError("done"))  # which is all that counts here
            self.dispatch.pump()

    def play(self, requests):
        for _ in range(1000):
            if all(request.ended for request in requests):
                return
            assert self.dispatch.waiting or any(w.running or w.checking for w in self.workers)
            self.step()
        raise AssertionError("it does not end")


def played(do):
    async def main():
        return do()

    return asyncio.run(main())


def errors(requests):
    return Counter(type(request._ended.exception()).__name__ for request in requests)


def one(number=0, **said):
    same = {"seeds": [number], "condition": [0], "spec": {"solver": "ddim", "steps": 4}}
    return cases.asked(number, **(same | said))


def test_a_worker_gets_two_batches_and_the_rest_waits():
    def do():
        stage = Stage()
        requests = [stage.add(one(i)) for i in range(12)]
        assert len(stage.workers[0].running) == 8 and len(stage.workers[0].checking) == 4
        stage.step()
        assert len(stage.workers[0].running) == 4 and not stage.workers[0].checking
        later = stage.add(one(100))
        assert later.id in stage.workers[0].running
        stage.play([*requests, later])

    played(do)


def test_a_large_request_leaves_room_and_another_submitter_passes():
    def do():
        stage = Stage()
        for i in range(2):  # the first leaves room for the second
            large = stage.add(one(i, seeds=list(range(500)), condition=[0] * 500))
            assert large.id in stage.workers[0].running
        small = stage.add(one(3, key="another"))
        assert small.id in stage.workers[0].running
        assert stage.add(one(4)).id in stage.workers[0].checking

    played(do)


def test_who_has_the_least_to_do_gets_it_and_who_is_not_ready_nothing():
    def do():
        stage = Stage(workers=3)
        stage.workers[1].state = "restarting"
        requests = [stage.add(one(i)) for i in range(6)]
        assert [len(worker.running) for worker in stage.workers] == [3, 0, 3]
        for worker in stage.workers:
            worker.state = "restarting"
        waits = stage.add(one(7))
        assert waits.keeper is None and stage.dispatch.waiting == 1
        stage.workers[1].state = "ready"
        stage.dispatch.pump()
        assert waits.id in stage.workers[1].running
        stage.play([*requests, waits])

    played(do)


def test_what_was_looked_at_once_is_not_looked_at_again():
    def do():
        stage = Stage()
        first = [stage.add(one(i)) for i in range(9)]
        stage.step()
        more = [stage.add(one(i)) for i in range(20)]
        assert not stage.workers[0].checking and more[-1].rows == 5 and more[-1].taken.done()
        x = np.ones((1, 2, 4, 4), np.float32)
        tensors = [stage.add(one(i, start=0.5, tensors={"x": x})) for i in range(2)]
        assert len(stage.workers[0].checking) == 2, "whose values count"
        stage.play([*first, *more, *tensors])

    played(do)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("place", [0, 5, 11])
def test_who_is_guilty_is_found_and_nobody_else_is_refused(workers, place):
    def do():
        stage = Stage(workers, guilty=lambda asked: asked.condition == [9])
        asked = [one(i, condition=[9 if i == place else 0]) for i in range(12)]
        requests = [stage.add(each) for each in asked]
        stage.play(requests)
        found = errors(requests)
        assert found == {"WorkerLost": 1, "RuntimeError": 11} and stage.lost == 3
        assert isinstance(requests[place]._ended.exception(), WorkerLost)
        assert stage.met[requests[place].id] == 3
        assert all(stage.met[request.id] <= 3 for request in requests)
        assert isinstance(stage.quarantine.objection(asked[place]), Quarantined)
        assert not stage.dispatch._accused and not stage.dispatch.waiting
        assert not any(worker.alone for worker in stage.workers)

    played(do)


def test_those_like_the_guilty_end_no_more_workers():
    def do():
        stage = Stage(guilty=lambda asked: asked.condition == [9])
        requests = [stage.add(one(i, condition=[9 * (i % 2)])) for i in range(40)]
        stage.play(requests)
        found = errors(requests)
        assert found == {"RuntimeError": 20, "WorkerLost": 1, "Quarantined": 19} and stage.lost == 3

    played(do)


def lose(stage, number=0):
    """A worker ends, and another is in its place."""
    stage.workers[number].state = "restarting"
    stage.dispatch.lost(stage.workers[number])
    stage.workers[number].state = "ready"
    stage.dispatch.pump()


def test_what_was_at_a_worker_that_is_lost_is_made_again_together_and_before_what_came_later():
    def do():
        stage = Stage()
        requests = [stage.add(one(i)) for i in range(20)]
        before = list(stage.workers[0].running)
        lose(stage)
        assert list(stage.workers[0].running) == before and not stage.workers[0].alone
        stage.play(requests)
        assert errors(requests) == {"RuntimeError": 20}

    played(do)


def test_a_worker_that_ends_for_no_reason_refuses_nobody():
    def do():
        stage = Stage()
        requests = [stage.add(one(i)) for i in range(20)]
        lose(stage)
        lose(stage)
        assert len(stage.workers[0].running) == 1 and stage.workers[0].alone
        fresh = stage.add(one(50, spec={"solver": "ddim", "steps": 9}))
        assert fresh.id not in stage.workers[0].running
        stage.play([*requests, fresh])
        assert errors(requests) == {"RuntimeError": 20}

    played(do)


def test_one_worker_of_two_is_kept_for_suspects_and_the_other_goes_on():
    def do():
        stage = Stage(workers=2)
        requests = [stage.add(one(i)) for i in range(16)]
        lose(stage)
        lose(stage)
        assert not stage.workers[1].alone, "it has others, who are no suspects"
        assert stage.workers[0].alone and len(stage.workers[0].running) == 1
        fresh = stage.add(one(50, condition=[1]))
        stage.play([*requests, fresh])
        assert errors(requests) == {"RuntimeError": 16}

    played(do)


def looked(stage, request):
    """The worker that looks at a request finds that it suits."""
    request.keeper.checking.pop(request.id)
    request.keeper = None
    request.looked(5, 5)
    stage.dispatch.looked(request)


def test_while_suspects_wait_a_worker_is_emptied_for_them():
    def do():
        stage = Stage(workers=2, retries=1)
        requests = [stage.add(one(i)) for i in range(6)]
        stage.workers[0].state = "restarting"
        stage.dispatch.lost(stage.workers[0])
        fresh = stage.add(one(50, condition=[1]))
        looked(stage, fresh)
        assert fresh.keeper is None and stage.dispatch.waiting == 4
        stage.play([*requests, fresh])

    played(do)


def test_who_is_like_a_suspect_is_one():
    def do():
        stage = Stage(workers=2, retries=1)
        suspect, beside = stage.add(one(1)), stage.add(one(2, condition=[2]))
        stage.workers[0].state = "restarting"
        stage.dispatch.lost(stage.workers[0])
        stage.workers[0].state = "ready"
        stage.dispatch.pump()
        assert stage.workers[0].alone and list(stage.workers[1].running) == [beside.id]
        alike, other = stage.add(one(50)), stage.add(one(51, condition=[1]))
        looked(stage, other)
        looked(stage, alike)
        assert list(stage.workers[1].running) == [beside.id, other.id]
        stage.play([suspect, beside, alike, other])

    played(do)


def test_a_suspect_that_is_given_up_holds_nobody_up():
    def do():
        stage = Stage()
        requests = [stage.add(one(i)) for i in range(4)]
        lose(stage)
        lose(stage)
        for request in requests:
            request.cancel("enough")
            stage.workers[0].over(request.id)
        assert not stage.dispatch._accused and not stage.dispatch.waiting
        assert stage.add(one(9)).id in stage.workers[0].running

    played(do)


def test_a_start_that_two_connections_tell_is_one_event():
    async def do():
        request = Request(one(), print, print, lambda request: None)
        events = request.events()
        assert (await anext(events)).kind == "queued"
        request.started()
        for kind in ("started", "row"):
            request.heard(Told(kind))
        request.restart()
        request.started()
        request.cancel("enough")
        return [told.kind async for told in events]

    expected = ["started", "row", "restarted", "started", "cancelled"]
    assert asyncio.run(do()) == expected


@pytest.mark.parametrize(
    ("side", "room", "kept"), [(8, 64, 64), (512, 64, 5), (2048, 64, 1), (8, 0, 0)]
)
def test_a_slow_reader_keeps_the_newest_previews_within_bytes(side, room, kept):
    async def do():
        request = Request(one(), print, print, lambda request: None)
        events = request.events(room)
        assert (await anext(events)).kind == "queued"
        for row in range(100):
            denoised = np.zeros((3, side, side), np.uint8)
            request.heard(Told("preview", row=row, denoised=denoised))
        request.fail(GivenUp("enough"))
        return [told.row async for told in events][:-1]

    assert asyncio.run(do()) == list(range(100 - kept, 100))


def test_thousands_like_a_suspect_wait_for_it():
    def do():
        stage = Stage()
        requests = [stage.add(one(i)) for i in range(3000)]
        lose(stage)
        lose(stage)
        assert stage.workers[0].alone and len(stage.workers[0].running) == 1
        assert stage.dispatch.waiting == len(requests) - 1
        for request in requests:
            request.cancel("enough")
        assert not stage.dispatch._accused and not stage.dispatch.waiting

    played(do)


def test_without_workers_for_good_nobody_waits():
    def do():
        stage = Stage()
        stage.workers[0].state = "failed"
        waits = stage.add(one())
        stage.dispatch.end("no worker starts any more")
        assert errors([waits]) == {"WorkerLost": 1} and waits.status == "failed"

    played(do)


def test_a_keeper_that_breaks_down_is_no_worker_any_more(caplog):
    async def main():
        told = []
        keeper = Keeper(
            "cpu", 4, None, lambda _: 1 / 0, lambda _, end: told.append(end.kind), None, 1.0
        )
        keeper._started = lambda: asyncio.sleep(0)
        await keeper.start()
        await asyncio.sleep(0.01)
        assert told == ["failed"] and keeper.state == "failed" and not keeper.ready

    asyncio.run(main())
    assert "kept no more" in caplog.text


def test_a_recipe_is_what_is_asked_for_without_seeds():
    same = [one(1), one(2, id="b", seeds=[9], priority=3.0, deadline=4.0, key="c", preview=2)]
    assert len({recipe(asked) for asked in same}) == 1
    others = [
        one(1, model="b"), one(1, spec={"solver": "ddim", "steps": 5}), one(1, condition=[3]),
        one(1, guidance=2.0), one(1, seeds=[1, 2]), one(1, start=0.5), one(1, adapter="a"),
        *(one(1, tensors={"x": np.full(3, i, np.float32)}) for i in (1, 2)),
        one(1, tensors={"x": np.full((3, 1), 1, np.float32)}),
    ]  # fmt: skip
    assert len({recipe(asked) for asked in [one(1), *others]}) == 1 + len(others)


def test_a_quarantine_ends_and_has_bounds():
    now = 0.0
    quarantine = Quarantine(60.0, lambda: now)
    quarantine.put(one(1))
    with pytest.raises(Quarantined, match="60 s more"):
        quarantine.check(one(2))
    quarantine.check(one(2, condition=[5]))
    now = 61.0
    quarantine.check(one(2))
    assert len(quarantine) == 0
    for i in range(MOST + 5):
        quarantine.put(one(1, model=str(i)))
    assert len(quarantine) == MOST
