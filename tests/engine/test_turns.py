"""Lanes take turns: time in proportion to their load, switches of weights held down, and nobody starves."""

import threading
from dataclasses import dataclass

import pytest
from adapter_cases import PAIR, WAIT, WHOLE, network

from diffusion_engine.engine import Engine, weights
from diffusion_engine.engine.turns import SWITCHES, join, turn

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


@dataclass(eq=False)
class Lane:
    load: int
    row_s: float
    served: Weights
    adapter: object = None
    turned: float = 0.0
    had: float = 0.0
    time: float = 0.0
    longest: float = 0.0


def simulated(lanes, seconds, aging=AGING):
    """Busy lanes for so long, on a clock that goes on with their rows and switches alone."""
    now = 0.0
    while now < seconds:
        lane = turn(lanes, now, aging)
        lane.longest, lane.turned = max(lane.longest, now - lane.turned), now
        if switch := lane.served.weights.cost(lane.adapter):
            lane.served.on, now = lane.adapter, now + switch
            lane.served.switched += 1
        now, lane.time = now + lane.row_s, lane.time + lane.row_s
        lane.had += lane.row_s / lane.load
    return now


@pytest.mark.parametrize("loads", [(12, 4), (1, 1), (64, 1), (5, 3, 8)])
@pytest.mark.parametrize("seconds", [(1, 1, 1), (10, 1, 3), (1, 10, 3)])
def test_lanes_get_time_in_proportion_to_their_load(loads, seconds):
    lanes = [Lane(n, 2.0**-6 * s, Weights(0.0)) for n, s in zip(loads, seconds, strict=False)]
    whole = simulated(lanes, 60.0, aging=1e9)
    # Two lanes are no more than a row apart.
    apart = max(lane.row_s / lane.load for lane in lanes)
    for lane in lanes:
        assert abs(lane.time - whole * lane.load / sum(loads)) <= lane.load * apart


@pytest.mark.parametrize("loads", [(16, 16), (16, 16, 16, 16), (64, 1), (1, 64, 4)])
@pytest.mark.parametrize("seconds", [1e-3, 0.1, 1.0])
def test_switches_take_no_more_than_their_share_and_nobody_starves(loads, seconds):
    weights, row = Weights(seconds), 2.0**-6
    lanes = [Lane(n, row, weights, adapter=i) for i, n in enumerate(loads)]
    whole = simulated(lanes, 200.0)
    assert weights.switched > len(loads)
    by_age = len(loads) * (whole / AGING + 1)
    assert weights.switched * seconds <= whole / SWITCHES + by_age * seconds
    for lane in lanes:
        assert lane.longest <= AGING + len(lanes) * (seconds + row)


def test_a_lane_that_was_idle_starts_level_with_the_others():
    lanes = [Lane(1, 2.0**-6, Weights(0.0)) for _ in range(3)]
    simulated(lanes[:2], 8.0)
    for lane in lanes[:2]:
        lane.turned = 0.0
    join(lanes[2], lanes[:2], 8.0)
    assert lanes[2].turned == 8.0
    assert lanes[2].had == min(lane.had for lane in lanes[:2])
    join(lanes[0], [], 9.0)
    assert lanes[0].had > 0


def test_a_lane_whose_weights_are_dear_waits_for_aging_alone():
    weights = Weights(5.0, on="a")
    busy, dear = Lane(64, 2.0**-6, weights, "a"), Lane(1, 2.0**-6, weights, "b")
    simulated([busy, dear], AGING - 1)
    assert dear.time == 0
    busy.turned = dear.turned = 0.0
    simulated([busy, dear], AGING + 1)
    assert dear.time > 0


def test_where_nobody_else_is_busy_a_lane_does_not_wait():
    lanes = [Lane(1, 1e-3, Weights(1e6, on="a"), adapter=name) for name in "bc"]
    assert turn(lanes, 1e-3, AGING) in lanes
    assert turn(lanes[:1], 0.0, AGING) is lanes[0]


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
