"""An engine whose networks are replayed: each sample has the bits that it has alone, no call is recorded."""

import json

import pytest
import torch
from native_cases import WAIT, function, gradient, small

from diffusion_engine import Sampler
from diffusion_engine.engine import Engine
from diffusion_engine.native import Native

REQUESTS = [
    ({"solver": "dpmpp_2m", "steps": 4}, {"condition": [1, 2, 0], "guidance": 2.0, "seed": 3}),
    ({"solver": "ddpm", "steps": 3}, {"condition": [2], "seed": 9}),
    ({"solver": "heun", "steps": 2}, {"condition": [0, 1], "guidance": [1.0, 3.0], "seed": 1}),
]


@pytest.fixture(scope="module")
def network():
    return small()


def results(engine):
    handles = [engine.submit(spec, **request) for spec, request in REQUESTS]
    return [handle.result(WAIT) for handle in handles]


@pytest.mark.parametrize("how", [{}, {"batch": "fixed"}, {"probe": False}], ids=str)
def test_samples_are_those_alone(network, how):
    with Engine(network, capacity=3, executor="native", **how) as engine:
        made = results(engine)
        said = engine.probe("ddim", condition=1)
        (report,) = engine.snapshot()["probes"][""]
    assert report["promised"] and report["invariant"] and said.invariant
    assert not said.found and "nothing is tried" in str(said)
    executor = Native()
    for (spec, request), result in zip(REQUESTS, made, strict=True):
        assert result.recipe["calls"] is None and result.recipe["bucket"] is None
        sampler = Sampler(network, spec["solver"], spec["steps"], executor=executor)
        assert torch.equal(sampler.sample(**request).samples, result.samples)
        recipe = json.loads(json.dumps(result.recipe))
        again = Sampler.replay(network, recipe, how={"executor": executor})
        assert torch.equal(again.samples, result.samples) and again.recipe == (
            result.recipe | {"threads": again.recipe["threads"]}  # of the calls that it made
        )


def test_calls_in_parts_and_apart_are_replayed_too(network, monkeypatch):
    """Where a call fails its samples are called in another way: by the same operations."""
    with Engine(network, capacity=3, executor="native") as engine:
        whole = results(engine)
        (lane,) = engine._loop._served[0].lanes.values()
        for way in ({"apart": 1000}, {}):
            monkeypatch.setattr(lane, "apart", way.get("apart", 0))
            if not way:
                lane._limit.halve(3)
            for one, other in zip(whole, results(engine), strict=True):
                assert torch.equal(one.samples, other.samples)
                assert other.recipe["calls"] is None


def test_weights_change_between_rows():
    own = small()
    given = {"condition": [1], "seed": 4}
    with Engine(own, capacity=2, executor="native") as engine:
        before = engine.submit("ddim", **given).result(WAIT)
        other = {name: tensor * 1.25 for name, tensor in own.module.state_dict().items()}
        engine.update_weights(other)
        after = engine.submit("ddim", **given).result(WAIT)
        assert not torch.equal(before.samples, after.samples)
        assert torch.equal(
            after.samples, Sampler(own, "ddim", executor="native").sample(**given).samples
        )
        with torch.no_grad():
            own.module.last.weight.mul_(0.5)  # as an optimizer does
        third = engine.submit("ddim", **given).result(WAIT)
        alone = Sampler(own, "ddim", executor="native").sample(**given)
        assert torch.equal(third.samples, alone.samples)


def test_adapters_take_turns():
    own = small()
    delta = {name: {"first.weight": torch.full((8, 1, 3, 3), size)} for name, size in ADAPTERS}
    given = {"condition": [1], "seed": 4}
    with Engine(own, capacity=2, executor="native", adapters=delta) as engine:
        names = [None, "a", "b", "a", None]
        made = [engine.submit("ddim", adapter=name, **given).result(WAIT) for name in names]
    with Engine(own, capacity=2, adapters=delta) as engine:
        want = [engine.submit("ddim", adapter=name, **given).result(WAIT) for name in names]
    for one, other in zip(made, want, strict=True):
        assert torch.allclose(one.samples, other.samples, atol=1e-3)
    assert torch.equal(made[1].samples, made[3].samples)
    assert torch.equal(made[0].samples, made[4].samples)
    assert not torch.equal(made[1].samples, made[2].samples)


ADAPTERS = [("a", 0.1), ("b", -0.2)]


def test_packed_weights_are_counted():
    with Engine(small(), capacity=2, executor="native") as engine:
        engine.submit("ddim", seed=1, condition=[1]).result(WAIT)
        (served,) = engine._served.values()
        (lane,) = served.lanes.values()
        packed = served.first.executor.packed(lane.batch.stages.network)
        assert packed > sum(t.nbytes for t in served.network.module.parameters()) // 2
        assert engine.snapshot()["bytes"] == packed + lane.batch.bytes
        engine._loop.ask(lane.batch.stages.forget)
        assert not served.packed


def test_packed_weights_make_room():
    own = {"one": small(), "two": small(seed=1)}
    with Engine(own, capacity=2, executor="native", max_bytes=1 << 21) as engine:
        for name in own:
            engine.submit("ddim", network=name, seed=1, condition=[1]).result(WAIT)
        served = engine._of("one")
        assert not served.packed


def test_weights_that_had_to_go_come_back():
    own = {"one": small(), "two": small(seed=1)}
    with Engine(own, capacity=2, executor="native", dtype=torch.float32) as engine:
        before = engine.submit("ddim", network="one", seed=1, condition=[1]).result(WAIT)
        served = engine._of("one")

        def away():
            served.weights.unload()
            for lane in served.lanes.values():
                lane.batch.stages.forget()

        engine._loop.ask(away)
        after = engine.submit("ddim", network="one", seed=1, condition=[1]).result(WAIT)
    assert torch.equal(before.samples, after.samples)


def test_a_network_that_differentiates_runs_eager():
    own = gradient()
    with Engine(own, capacity=2, executor="native") as engine:
        made = engine.submit("ddim", seed=2, condition=[1]).result(WAIT)
        said = engine.probe("ddim", condition=1)
    assert made.recipe["network_form"] is None and not said.report()["promised"]
    assert torch.equal(Sampler.replay(own, made.recipe).samples, made.samples)


def test_a_function_is_recorded():
    own = function(torch.tensor(0.5))
    with Engine(own, capacity=2, executor="native", batch="fixed") as engine:
        made = engine.submit("ddim", n=3, seed=2).result(WAIT)
    alone = Sampler(own, "ddim", executor="native").sample(3, seed=2)
    assert torch.equal(alone.samples, made.samples)
