"""Who gets the next seat, and who is turned away."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from engine_cases import TIMEOUT, Network, one, running, same, spec
from executor_cases import SHAPE

from diffusion_engine import ScoreNetwork
from diffusion_engine.engine import DeadlineMissed, Engine, EngineClosed, QueueFull
from diffusion_engine.engine.lane import Lane
from diffusion_engine.engine.waiting import Deadlines, Shares, Waiting
from diffusion_engine.processes import VP


class Clock:
    """Seconds that go by when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def ends(*handles):
    for handle in handles:
        handle.result(TIMEOUT)


def test_the_highest_priority_goes_first():
    with running(1) as (network, engine):
        with network.held(engine):
            asked = [
                engine.submit(spec(), **one(i), priority=p) for i, p in enumerate((0, 2, 1, 2, -1))
            ]
        ends(*asked)
    assert network.order() == [9, 1, 3, 2, 0, 4]


def test_age_raises_a_priority():
    """Nobody starves: a request that waits passes those of a higher priority that come later."""
    clock = Clock()
    with running(1, aging=10.0, clock=clock) as (network, engine):
        with network.held(engine):
            asked = [engine.submit(spec(), **one(0), priority=0)]
            clock.now += 25.0  # two levels and a half
            asked += [engine.submit(spec(), **one(i), priority=i) for i in (1, 2, 3)]
            clock.now += 1.0
        ends(*asked)
    assert network.order() == [9, 3, 0, 2, 1]


def test_nobody_starves_under_a_stream_of_higher_priority():
    clock, ahead = Clock(), []
    with running(1, aging=1.0, clock=clock) as (network, engine):
        with network.held(engine) as first:
            low = engine.submit(spec(), **one(0), priority=0)

            def another(ended):
                clock.now += 0.5
                if ended is not low and low.status == "queued" and len(ahead) < 100:
                    ahead.append(engine.submit(spec(), **one(1), priority=5))
                    ahead[-1].add_done_callback(another)

            # Two streams: the seat of one that ends is given away a row before.
            first.add_done_callback(another)
            first.add_done_callback(another)
        ends(low)
    assert 8 <= len(ahead) <= 14  # five levels are ten of half a second


def test_submitters_share_evenly():
    """One with 50 requests and one with 5 that come after them get a seat in turn."""
    with running(1) as (network, engine):
        with network.held(engine):
            asked = [engine.submit(spec(), **one(0, i), key="many") for i in range(50)]
            asked += [engine.submit(spec(), **one(1, i), key="few") for i in range(5)]
        ends(*asked)
    labels = [label for (label,) in network.calls]
    assert labels[0] == 9 and labels[1:11].count(1) == 5
    assert labels[11:] == [0] * 45


def test_shares_are_of_cost():
    """Who asks for long runs gets fewer of them."""
    with running(1) as (network, engine):
        with network.held(engine):
            asked = [engine.submit(spec(steps=7), **one(0, i), key="long") for i in range(6)]
            asked += [engine.submit(spec(steps=1), **one(1, i), key="short") for i in range(12)]
        ends(*asked)
    runs = [label for (label,) in network.calls][1:]
    before = runs[: runs.index(1) + 1 + runs[runs.index(1) :].count(1) - 1]
    # A run of 7 steps has 8 rows and costs as much as four of 1: both have had as much after 3 and 12.
    assert runs.index(1) <= 7 and before.count(0) <= 21
    last_short = len(runs) - 1 - runs[::-1].index(1)
    assert runs[:last_short].count(0) <= 4 * 7


def test_a_bulk_job_holds_no_small_one_up():
    bulk = {"seeds": range(200), "condition": [0] * 200}
    with running(2) as (network, engine):
        with network.held(engine):
            job = engine.submit(spec(), **bulk)
            small = [engine.submit(spec(), **one(i)) for i in (1, 2, 3)]
        ends(*small)
        assert job.status == "running"
        assert same(job, **bulk)
    labels = [label for call in network.calls for label in call]
    assert max(labels.index(i) for i in (1, 2, 3)) < 10


def test_a_full_queue():
    with running(1, max_queue=3) as (network, engine):
        with network.held(engine):
            others = [engine.submit(spec(), **one(i)) for i in (1, 2)]
            with pytest.raises(
                QueueFull, match="3 requests are here and max_queue is 3; try again"
            ):
                engine.submit(spec(), **one(3))
            assert others[0].cancel()
            others.append(engine.submit(spec(), **one(4)))
        ends(*others[1:])


def test_who_is_told_may_submit_the_next():
    """One place in the queue serves one request after another."""
    with running(1, max_queue=1) as (_, engine):
        for i in range(50):
            assert same(engine.submit(spec(), **one(i % 10)), **one(i % 10))
        told, done = [], threading.Event()

        def another(_):
            told.append(engine.submit(spec(), **one(1)))
            done.set()

        engine.submit(spec(), **one(1)).add_done_callback(another)
        assert done.wait(TIMEOUT)
        ends(*told)


def test_a_deadline_that_passes():
    clock = Clock()
    with running(1, clock=clock) as (network, engine):
        with network.held(engine, 3, deadline=5.0) as runs:
            waits = engine.submit(spec(), **one(1), deadline=6.0)
            free = engine.submit(spec(), **one(2), deadline=100.0)
            clock.now += 7.0
        for handle, after in ((runs, 7), (waits, 7)):
            with pytest.raises(DeadlineMissed, match=f"not done after {after} s"):
                handle.result(TIMEOUT)
            assert handle.status == "cancelled"
        assert same(free, **one(2))
    assert network.order() == [9, 2]


def test_a_deadline_that_cannot_be_met(monkeypatch):
    """Refused at once; and a request that still waits when its rows take too long does not wait any more."""
    clock = Clock()
    of_two = property(lambda lane: 2.0, lambda lane, seconds: None)
    monkeypatch.setattr(Lane, "least_s", of_two, raising=False)
    with running(1, clock=clock) as (network, engine):
        with network.held(engine):
            with pytest.raises(
                DeadlineMissed, match="deadline=5 s cannot be met: its rows alone take 6 s"
            ):
                engine.submit(spec(steps=3), **one(1), deadline=5.0)
            waits = engine.submit(spec(steps=3), **one(1), deadline=10.0)
            other = engine.submit(spec(steps=1), **one(2), deadline=10.0)
            clock.now += 5.0
        with pytest.raises(DeadlineMissed, match="no seat after 5 s, its rows alone take"):
            waits.result(TIMEOUT)
        assert same(other, **one(2))
    assert network.order() == [9, 2]


def test_fast_rows_are_remembered_for_a_while():
    with running(1) as (_, engine):
        ends(engine.submit(spec(steps=50), **one(0)))
        (lane,) = next(iter(engine._served.values())).lanes.values()
        low = lane.least_s
        assert low > 0.0
        ends(engine.submit(spec(steps=5), **one(0)))
        assert lane.least_s <= low * 1.01**6  # five rows, and the rounding of their product


class Entry:
    """What the queues know of a request."""

    def __init__(self, order, **about):
        self.order, self.priority, self.waited, self.service = order, 0.0, 0.0, 0.0
        self.waiting, self.key, self.deadline, self.admitted, self.ended = 1, "", 1e9, 0, False
        vars(self).update(about)

    def least_s(self, row_s):
        return row_s


def test_the_ended_leave_the_queues():
    """Those behind a request that never gets its seat, and those whose deadline is far off."""
    waiting, deadlines = Waiting(Shares(), 10.0), Deadlines()
    first = Entry(0, priority=5.0)
    waiting.put(first, 0.0)
    deadlines.put(first, 0.0)
    for i in range(1, 1000):
        entry = Entry(i, key=str(i % 7))
        waiting.put(entry, 0.0)
        deadlines.put(entry, 0.0)
        entry.ended, entry.waiting = True, 0
        waiting.leave(entry)
        deadlines.leave()
        assert len(waiting) <= 4 and len(deadlines._heap) <= 4
    assert waiting.tickets() == [first]


def test_who_was_cancelled_does_not_wait():
    """From that moment on, whether the engine has heard of it or not."""
    waiting, entries = Waiting(Shares(), 10.0), [Entry(i, priority=i) for i in range(3)]
    assert not waiting and waiting.priority == -math.inf
    for entry in entries:
        waiting.put(entry, 0.0)
    assert waiting and waiting.priority == 2
    assert waiting.pop(0.0) is entries[2] and waiting.priority == 1
    for entry in entries:
        entry.ended, entry.waiting = True, 0
    assert not waiting
    for entry in entries:
        waiting.leave(entry)
    assert not waiting and waiting.priority == -math.inf and not len(waiting)


def test_every_signature_gets_turns():
    """A batch whose seats are always full does not keep another from its rows."""
    network = ScoreNetwork(lambda x, label: 0.5 * x, VP(), SHAPE)
    noise = torch.randn(9, 1, 1, *SHAPE)
    with Engine(network, 4) as engine:
        long = engine.submit(spec("ddpm", 1000), 8)
        short = [engine.submit(spec("ddpm", 8), 1, noise=noise) for _ in range(3)]
        ends(*short)
        assert long.status == "running"
        long.cancel()


def test_bad_input_is_told_to_its_caller():
    wrong = [
        (ValueError, "deadline=-1 lies in the past", spec(), one(1, deadline=-1)),
        (ValueError, "deadline", spec(), one(1, deadline=float("nan"))),
        (ValueError, "priority", spec(), one(1, priority="high")),
        (ValueError, "preview", spec(), one(1, preview=-1)),
        (ValueError, "solver", spec("dimm"), one(1)),
        (ValueError, "spec=7", 7, one(1)),
        (ValueError, "steps", spec(steps=0), one(1)),
        (ValueError, "float64", spec(dtype="float64"), one(1)),
        (ValueError, "n=2 samples and 3 seeds", spec(), {"n": 2, "seeds": [1, 2, 3]}),
        (ValueError, "classes", spec(), one(11)),
        (ValueError, "condition", spec(), {"condition": [1, 2], "seeds": [1]}),
        (ValueError, "takes no sedes; did you mean seeds", spec(), {"sedes": [1]}),
        (ValueError, "start", spec(), {"x": torch.zeros(1, *SHAPE)}),
        (ValueError, "x has shape", spec(), {"x": torch.zeros(1, 3, 4, 4), "start": 0.5}),
        (ValueError, "network='other'", spec(), one(1, network="other")),
        (ValueError, "noise", spec(), one(1, noise="pink")),
    ]
    with running(2) as (network, engine):
        with network.held(engine) as neighbour:
            for kind, words, asked, request in wrong:
                with pytest.raises(kind, match=words):
                    engine.submit(asked, **request)
            assert engine.snapshot()["submitted"] == 1
        assert same(neighbour, **one(9, 1))
        ends(engine.submit("ddim", **one(1)), engine.submit(spec(), **one(2)))
    with pytest.raises(EngineClosed, match="closed; make another"):
        engine.submit(spec(), **one(1))


def test_a_condition_of_another_shape_fails_alone():
    def read(x, label, y):
        return x * y.view(-1, 1, 1, 1)  # one number a sample

    network = ScoreNetwork(read, VP(), SHAPE)
    with Engine(network, 4) as engine:
        good = [engine.submit(spec(steps=4), condition=torch.ones(1, 1)) for _ in range(2)]
        bad = engine.submit(spec(steps=4), condition=torch.ones(1, 5))
        with pytest.raises(ValueError, match="a batch of 5 for one of 1"):
            bad.result(TIMEOUT)
        ends(*good)


@pytest.mark.parametrize("closed", [False, True])
def test_a_request_that_takes_long_to_check_keeps_nobody_waiting(closed):
    reached, go = threading.Event(), threading.Event()

    def seeds():
        yield 1
        reached.set()
        assert go.wait(TIMEOUT)
        yield 2

    with running(2) as (_, engine), ThreadPoolExecutor(1) as pool:
        ends(engine.submit(spec(), **one(3)))
        large = pool.submit(lambda: engine.submit(spec(), seeds=seeds(), condition=[1, 2]))
        assert reached.wait(TIMEOUT)
        try:
            assert same(engine.submit(spec(steps=3), **one(5)), steps=3, **one(5))
            if closed:
                engine.close()
        finally:
            go.set()
        if closed:
            with pytest.raises(EngineClosed):
                large.result(TIMEOUT)
        else:
            assert same(large.result(TIMEOUT), seeds=[1, 2], condition=[1, 2])


def test_an_engine_that_makes_no_sense():
    network = Network().score
    for words, given in (
        ("networks=3", {"networks": 3}),
        ("networks=", {"networks": {}}),
        ("capacity=0", {"capacity": 0}),
        ("max_queue", {"max_queue": 0}),
        ("max_bytes", {"max_bytes": -1}),
        ("batch='large'", {"batch": "large"}),
        ("aging=0: seconds, more than 0", {"aging": 0}),
        ("executor='warp'", {"executor": "warp"}),
        ("adapters=5: give a mapping", {"adapters": 5}),
        (
            r"adapters\['it'\]=5: give a mapping",
            {"networks": {"it": network}, "adapters": {"it": 5}},
        ),
    ):
        with pytest.raises(ValueError, match=words):
            Engine(**{"networks": network, **given})
