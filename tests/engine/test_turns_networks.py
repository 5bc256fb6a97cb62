"""Priorities and keys act between the networks of an engine."""

from itertools import count

import pytest
from engine_cases import TIMEOUT, Network, one, spec

from diffusion_engine.engine import Engine


def three(calls):
    """Networks of one engine whose calls go into one list, by name."""
    made = {}
    for name in "abc":
        made[name] = Network()
        made[name].score = made[name].score.with_module(logged(name, made[name].run, calls))
    return made


def logged(name, run, calls):
    def called(*given):
        calls.append(name)
        return run(*given)

    return called


def test_a_priority_acts_between_networks():
    calls = []
    networks = three(calls)
    named = {name: network.score for name, network in networks.items()}
    with Engine(named, 1, probe=False) as engine:
        with networks["a"].held(engine, 1, network="a"):
            low = [engine.submit(spec(steps=8), **one(1), network=name) for name in "ab"]
            high = engine.submit(spec(steps=8), **one(1), network="c", priority=1)
        for handle in (*low, high):
            handle.result(TIMEOUT)
    assert calls[:9] == ["a"] + ["c"] * 8
    assert sorted(calls[9:]) == ["a"] * 8 + ["b"] * 8


@pytest.mark.parametrize(("keys", "share"), [("xxy", 1 / 2), ("xyz", 2 / 3), ("xxx", 2 / 3)])
def test_a_key_acts_between_networks(keys, share, monkeypatch):
    """Rows of one length; of those until c is done, as many are of a and b as their keys have to get."""
    ticks = count()
    monkeypatch.setattr("diffusion_engine.engine.lane.perf_counter", lambda: float(next(ticks)))
    calls = []
    networks = three(calls)
    named = {name: network.score for name, network in networks.items()}
    with Engine(named, 1, probe=False) as engine:
        with networks["a"].held(engine, 1, network="a"):
            asked = [
                engine.submit(
                    spec(steps=60 if name != "c" else 20), **one(1), network=name, key=key
                )
                for name, key in zip("abc", keys, strict=True)
            ]
        for handle in asked:
            handle.result(TIMEOUT)
    until = calls[: len(calls) - calls[::-1].index("c")]
    others = len(until) - until.count("c") - 1  # the one that was held
    assert abs(others - share * (others + 20)) <= 4
