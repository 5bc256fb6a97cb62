"""Lanes take turns: by priority and fairly by key, switches of weights held down, and nobody starves."""

import math
import threading
from dataclasses import dataclass, field

import pytest
from adapter_cases import PAIR, WAIT, WHOLE, network

from diffusion_engine.engine import Engine, weights
from diffusion_engine.engine.turns import SWITCHES, Turns

AGING = 10.0


@dataclass
class Weights:
    """Of a network whose adapters take so many seconds to switch."""

    seconds: float
    on: object = None
    switched: int = 0

    @property
    def weights(self):
        return self

    def cost(self, adapter):
        return self.seconds if adapter not in (None, self.on) else 0.0


@dataclass
class Sample:
    """Of a request, in a seat; its own plan."""

    entries: int
    key: str = ""
    priority: float = 0.0

    @property
    def plans(self):
        return [self]


@dataclass
class Waiting:
    priority: float = -math.inf


@dataclass(eq=False)
class Lane:
    """Of samples that never end; (entries, key) of each."""

    samples: list
    row_s: float
    served: Weights
    adapter: object = None
    turned: float = 0.0
    had: float = 0.0
    rank: int = 0
    time: float = 0.0
    longest: float = 0.0
    waiting: Waiting = field(default_factory=Waiting)

    def __post_init__(self):
        self.seats = {i: (Sample(*given), 0) for i, given in enumerate(self.samples)}

    @property
    def load(self):
        return sum(sample.entries for sample, _ in self.seats.values())

    def asks(self, priority):
        for sample, _ in self.seats.values():
            sample.priority = priority


def of_load(load, row_s, *more):
    return Lane([(load,)], row_s, *more)


def simulated(lanes, seconds, aging=AGING, turns=None, now=0.0):
    """Busy lanes for so long, on a clock that goes on with their rows and switches alone."""
    turns, end = turns or Turns(aging), now + seconds
    while now < end:
        lane = turns.next(lanes, now)
        lane.longest, lane.turned = max(lane.longest, now - lane.turned), now
        if switch := lane.served.weights.cost(lane.adapter):
            lane.served.on, now = lane.adapter, now + switch
            lane.served.switched += 1
        turns.charge(lane, lanes)
        now, lane.time = now + lane.row_s, lane.time + lane.row_s
    return now


@pytest.mark.parametrize("loads", [(12, 4), (1, 1), (64, 1), (5, 3, 8)])
@pytest.mark.parametrize("seconds", [(1, 1, 1), (10, 1, 3), (1, 10, 3)])
def test_lanes_get_time_in_proportion_to_their_load(loads, seconds):
    lanes = [of_load(n, 2.0**-6 * s, Weights(0.0)) for n, s in zip(loads, seconds, strict=False)]
    whole = simulated(lanes, 60.0, aging=1e9)
    # Two lanes are no more than a row apart.
    apart = max(lane.row_s / lane.load for lane in lanes)
    for lane in lanes:
        assert abs(lane.time - whole * lane.load / sum(loads)) <= lane.load * apart


@pytest.mark.parametrize("loads", [(16, 16), (16, 16, 16, 16), (64, 1), (1, 64, 4)])
@pytest.mark.parametrize("seconds", [1e-3, 0.1, 1.0])
def test_switches_take_no_more_than_their_share_and_nobody_starves(loads, seconds):
    weights, row = Weights(seconds), 2.0**-6
    lanes = [of_load(n, row, weights, i) for i, n in enumerate(loads)]
    whole = simulated(lanes, 200.0)
    assert weights.switched > len(loads)
    by_age = len(loads) * (whole / AGING + 1)
    assert weights.switched * seconds <= whole / SWITCHES + by_age * seconds
    for lane in lanes:
        assert lane.longest <= AGING + len(lanes) * (seconds + row)


KEYS = {
    "one spreads over three lanes": ([[(4, "a")]] * 3 + [[(4, "b")]], [1 / 3, 1 / 3, 1 / 3, 1]),
    "more entries are no more": ([[(64, "a")], [(1, "b")]], [1, 1]),
    "two meet in a lane": ([[(2, "a"), (2, "b")], [(4, "a")]], [4 / 3, 2 / 3]),
    "seats of one key add up": ([[(1, "a")] * 3, [(1, "a")], [(2, "b")]], [3 / 4, 1 / 4, 1]),
}


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("seconds", [(1, 1, 1, 1), (5, 1, 3, 2)])
def test_a_key_weighs_one_in_however_many_lanes(name, seconds):
    samples, weights = KEYS[name]
    rows = [2.0**-6 * s for s in seconds]
    lanes = [Lane(each, s, Weights(0.0)) for each, s in zip(samples, rows, strict=False)]
    whole = simulated(lanes, 60.0, aging=1e9)
    apart = max(lane.row_s / weight for lane, weight in zip(lanes, weights, strict=True))
    for lane, weight in zip(lanes, weights, strict=True):
        assert abs(lane.time - whole * weight / sum(weights)) <= weight * apart


@pytest.mark.parametrize("waits", [False, True])
def test_a_lane_of_higher_priority_goes_first_and_nobody_starves(waits):
    """Whether who has it sits or waits there; the other gets a row for each `aging` seconds."""
    low, high = (of_load(n, 2.0**-6, Weights(0.0)) for n in (64, 1))
    if waits:
        high.waiting.priority = 1.0
    else:
        high.asks(1.0)
    simulated([low, high], 100.0)
    assert 9 * low.row_s <= low.time <= 11 * low.row_s
    assert low.longest <= AGING + low.row_s


def test_a_priority_is_worth_its_seconds_of_age():
    lanes = [of_load(1, 2.0**-6, Weights(0.0)) for _ in range(3)]
    for lane, priority in zip(lanes, (0.5, -1, 2.0), strict=True):
        lane.asks(priority)
    turns = Turns(AGING)
    assert turns.next(lanes[:2], 0.0) is lanes[0]
    lanes[0].turned = 31.0
    assert turns.next(lanes[:2], 29.0) is lanes[1]
    lanes[2].turned = 29.0
    assert turns.next(lanes, 29.0) is lanes[2]
    lanes[1].had += 1.0
    assert turns.next(lanes, 40.0) is lanes[1]  # 3 like the last; its age brought it there


def test_higher_priority_has_its_switch_at_once():
    weights = Weights(5.0, on="a")
    busy, dear = of_load(64, 2.0**-6, weights, "a"), of_load(1, 2.0**-6, weights, "b")
    dear.asks(1)
    assert Turns(AGING).next([busy, dear], 0.0) is dear


def test_what_was_had_under_another_priority_is_no_debt():
    lanes, turns = [of_load(1, 2.0**-6, Weights(0.0)) for _ in range(2)], Turns(1e9)
    lanes[0].asks(1)
    now = simulated(lanes, 60.0, turns=turns)
    assert lanes[1].time == 0
    lanes[0].asks(0)
    simulated(lanes, 10.0, turns=turns, now=now)
    assert abs(lanes[1].time - 5.0) <= lanes[1].row_s


def test_a_lane_that_was_idle_starts_level_with_the_others():
    lanes, turns = [of_load(1, 2.0**-6, Weights(0.0)) for _ in range(3)], Turns(AGING)
    simulated(lanes[:2], 8.0, turns=turns)
    for lane in lanes[:2]:
        lane.turned = 0.0
    turns.join(lanes[2], lanes[:2], 8.0)
    assert lanes[2].turned == 8.0
    assert lanes[2].had == min(lane.had for lane in lanes[:2])
    had = lanes[0].had
    turns.join(lanes[0], [], 9.0)
    assert lanes[0].had == had


def test_who_comes_while_nobody_is_there_has_no_credit():
    """What two had together is no debt of theirs to a third, which was not there."""
    lanes, turns = [of_load(1, 2.0**-6, Weights(0.0)) for _ in range(3)], Turns(1e9)
    now = simulated(lanes[:2], 60.0, turns=turns)
    turns.join(lanes[2], [], now)
    turns.join(lanes[0], lanes[2:], now)
    before = lanes[0].time
    simulated([lanes[0], lanes[2]], 10.0, turns=turns, now=now)
    assert abs(lanes[0].time - before - 5.0) <= 2 * lanes[0].row_s


def test_a_lane_whose_weights_are_dear_waits_for_aging_alone():
    weights = Weights(5.0, on="a")
    busy, dear = of_load(64, 2.0**-6, weights, "a"), of_load(1, 2.0**-6, weights, "b")
    simulated([busy, dear], AGING - 1)
    assert dear.time == 0
    busy.turned = dear.turned = 0.0
    simulated([busy, dear], AGING + 1)
    assert dear.time > 0


def test_where_nobody_else_is_busy_a_lane_does_not_wait():
    lanes = [of_load(1, 1e-3, Weights(1e6, on="a"), name) for name in "bc"]
    assert Turns(AGING).next(lanes, 1e-3) in lanes
    assert Turns(AGING).next(lanes[:1], 0.0) is lanes[0]


def busy_until(engine, done, adapter, count):
    """Keeps an adapter busy: a request follows on each, till `done`; says when so many were done."""
    many, made = threading.Event(), [0]

    def again(_):
        made[0] += 1
        if made[0] == count:
            many.set()
        if not done.is_set():
            submit()

    def submit():
        engine.submit("dpmpp_2m", 2, adapter=adapter).add_done_callback(again)

    for _ in range(4):
        submit()
    return many


@pytest.mark.parametrize("aging", [0.05, 1e9])
def test_a_dear_switch_waits_for_the_others_and_comes_by_age(aging, monkeypatch):
    monkeypatch.setattr(weights, "_smoothed", lambda *_: 1e6)
    done = threading.Event()
    with Engine(network(), 2, adapters={"a": WHOLE, "b": PAIR}, aging=aging) as engine:
        many = busy_until(engine, done, "a", 30)
        handle = engine.submit("dpmpp_2m", 1, adapter="b")
        if aging > 1:
            assert many.wait(WAIT)
            assert handle.status == "queued"
            done.set()
        try:
            assert handle.result(WAIT).samples.shape[0] == 1
        finally:
            done.set()


def test_networks_of_unequal_load_both_come_to_their_end_under_each_others_load():
    named = {"a": network(), "b": network(1)}
    done = threading.Event()
    with Engine(named, 8) as engine:
        bulk = [engine.submit("dpmpp_2m", 64, network="a") for _ in range(4)]
        small = engine.submit("dpmpp_2m", 1, network="b")

        def again(handle):
            if not done.is_set():
                engine.submit("dpmpp_2m", 64, network="a").add_done_callback(again)

        for handle in bulk:
            handle.add_done_callback(again)
        try:
            assert small.result(WAIT).samples.shape[0] == 1
        finally:
            done.set()
        engine.close(drain=False)
