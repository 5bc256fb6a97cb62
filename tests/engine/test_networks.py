"""Several networks in one engine, under a budget of bytes."""

import copy
import re
import threading
from contextlib import contextmanager

import pytest
import torch
from adapter_cases import WAIT, Mixing, alone, network
from tape import launches_are_recorded, taping  # noqa: F401

from diffusion_engine import ScoreNetwork
from diffusion_engine.engine import Engine, EngineError
from diffusion_engine.engine.copies import tensors
from diffusion_engine.engine.turns import Turns
from diffusion_engine.engine.weights import Weights
from diffusion_engine.processes import VP

SPEC = {"solver": "dpmpp_2m", "steps": 4}
HALF = {"dtype": torch.bfloat16}  # the engine runs copies then, which it may drop


def bytes_of(of):
    return sum(2 * t.numel() for t in tensors(of.module))


class Large(Mixing):
    """With weights that nothing reads."""

    def __init__(self, seed=0, seen=None):
        super().__init__(seed, seen)
        self.more = torch.nn.Parameter(torch.ones(1 << 20))


def large(seed=0):
    return ScoreNetwork(Large(seed), VP(), (3, 4, 4))


def batch_bytes(**how):
    """Of a batch of such a network."""
    with Engine(large(), 2, **HALF, **how) as engine:
        engine.submit(SPEC, 1).result(WAIT)
        return engine.snapshot()["bytes"] - bytes_of(large())


@pytest.mark.parametrize("executor", ["eager", "taped"])
def test_networks_take_turns_in_a_room_for_one_and_come_back_with_the_same_bits(executor):
    named = {name: large(seed) for seed, name in enumerate("abc")}
    wanted = {name: alone(of, seeds=[3], **HALF) for name, of in named.items()}
    most = bytes_of(named["a"]) + batch_bytes() + (1 << 16)
    run = taping() if executor == "taped" else "eager"
    with Engine(named, 2, max_bytes=most, executor=run, **HALF) as engine:
        for name in "abcabccba":
            made = engine.submit(SPEC, seeds=[3], network=name).result(WAIT).samples
            assert torch.equal(made, wanted[name])
            seen = engine.snapshot()
            assert seen["networks"] == [name]
            assert seen["bytes"] <= most
        assert seen["load_s"]["count"] == 5
        # Both want it at once: each comes to its end.
        handles = {name: engine.submit(SPEC, seeds=[3], network=name) for name in "abc"}
        for name, handle in handles.items():
            assert torch.equal(handle.result(WAIT).samples, wanted[name])


@pytest.mark.parametrize("executor", ["eager", "taped"])
def test_networks_that_are_busy_give_way_to_each_other(executor, monkeypatch):
    """Row by row, an adapter's rows among them."""
    monkeypatch.setattr(
        Turns, "next", lambda _, lanes, now: min(lanes, key=lambda lane: lane.turned)
    )
    named = {name: large(seed) for seed, name in enumerate("ab")}
    spec = {"solver": "dpmpp_2m", "steps": 12}
    wanted = {name: alone(of, steps=12, seeds=[3], **HALF) for name, of in named.items()}
    deltas = {"mix": torch.full((3, 3), 0.25)}
    most = bytes_of(named["a"]) + batch_bytes() + (1 << 16)
    run = taping() if executor == "taped" else "eager"
    with Engine(named, 2, max_bytes=most, executor=run, **HALF) as engine:
        engine.add_adapter("it", deltas, "a")
        first = engine.submit(spec, seeds=[3], network="a", adapter="it").result(WAIT).samples
        engine.submit(SPEC, 1, network="b").result(WAIT)
        before, recorder = engine.snapshot()["load_s"]["count"], getattr(run, "_recorder", None)
        recorded = recorder and recorder.recorded
        with held(engine):
            handles = {name: engine.submit(spec, seeds=[3], network=name) for name in "ab"}
            again = engine.submit(spec, seeds=[3], network="a", adapter="it")
        for name, handle in handles.items():
            assert torch.equal(handle.result(WAIT).samples, wanted[name])
        assert torch.equal(again.result(WAIT).samples, first)
        loads = engine.snapshot()["load_s"]["count"] - before
        assert loads > 4
        # Weights that come back lie elsewhere: whoever runs on them is recorded anew.
        assert not recorder or recorder.recorded - recorded > loads


@contextmanager
def held(engine):
    """The engine does nothing meanwhile."""
    opened = threading.Event()
    asking = threading.Thread(target=engine._loop.ask, args=(lambda: opened.wait(WAIT),))
    asking.start()
    yield
    opened.set()
    asking.join(WAIT)


def test_a_row_sums_no_weights(monkeypatch):
    """Of a network that stays in place nothing is looked at, however many weights it has."""
    with Engine(network(), dtype=torch.float64) as engine:
        engine.submit(SPEC).result(WAIT)
        monkeypatch.setattr(Weights, "held", property(lambda _: 1 / 0))
        engine.submit(SPEC).result(WAIT)


def test_networks_that_fit_stay():
    named = {name: network(seed) for seed, name in enumerate("ab")}
    with Engine(named, 2, **HALF) as engine:
        for name in "abab":
            engine.submit(SPEC, 1, network=name).result(WAIT)
        seen = engine.snapshot()
    assert seen["networks"] == ["a", "b"]
    assert seen["load_s"]["count"] == 0


def test_new_weights_outlive_the_room():
    """Given before a network was placed, while it is, and while it is not."""
    named, other = {"a": large(), "b": large(1)}, [large(seed) for seed in (5, 6, 7)]
    given = [copy.deepcopy(of.module.state_dict()) for of in other]
    wanted = [alone(of, seeds=[3], **HALF) for of in other]
    most = bytes_of(named["a"]) + batch_bytes() + (1 << 16)
    with Engine(named, 2, max_bytes=most, **HALF) as engine:

        def made(name):
            return engine.submit(SPEC, seeds=[3], network=name).result(WAIT).samples

        engine.update_weights(given[0], "a")
        assert torch.equal(made("a"), wanted[0])
        engine.update_weights(given[1], "a")
        for _ in range(2):
            assert torch.equal(made("a"), wanted[1])
            made("b")
        assert engine.snapshot()["networks"] == ["b"]
        engine.update_weights(given[2], "a")
        for _ in range(2):
            assert torch.equal(made("a"), wanted[2])
            made("b")
        with pytest.raises(ValueError, match="do not fit the network"):
            engine.update_weights({}, "a")


def test_an_adapter_outlives_the_room():
    named = {"a": large(), "b": large(1)}
    deltas = {"mix": torch.full((3, 3), 0.25)}
    module = copy.deepcopy(named["a"].module).bfloat16()
    with torch.no_grad():
        module.mix.copy_((module.mix.float() + 0.25).bfloat16())
    wanted = alone(named["a"].with_module(module))
    most = bytes_of(named["a"]) + batch_bytes() + (1 << 16)
    with Engine(named, 2, max_bytes=most, adapters={"a": {"it": deltas}}, **HALF) as engine:
        for _ in range(2):
            made = engine.submit(SPEC, seeds=[0], network="a", adapter="it").result(WAIT).samples
            assert torch.equal(made, wanted)
            engine.submit(SPEC, 1, network="b").result(WAIT)
            assert engine.snapshot()["networks"] == ["b"]
            assert engine._served["a"].weights.held == 0


def test_a_network_that_is_too_large_alone_is_refused():
    with Engine({"a": large(), "b": network()}, 2, max_bytes=1 << 20, **HALF) as engine:
        with pytest.raises(
            ValueError, match=r"weights of 'a' take 2\.0 MiB, and max_bytes is 1\.0 MiB"
        ):
            engine.submit(SPEC, 1, network="a")
        with pytest.raises(
            EngineError, match=r"a batch of 2 samples .* MiB, and max_bytes is 1\.0 MiB"
        ):
            engine.submit(SPEC, 1, network="b").result(WAIT)


def test_batches_that_nobody_sits_in_go_first():
    """Of other signatures: the network stays."""
    of = large()
    most = bytes_of(of) + batch_bytes() + (1 << 16)
    with Engine(of, 2, max_bytes=most, **HALF) as engine:
        for start in (None, 0.5, None):
            more = (
                {}
                if start is None
                else {"mask": torch.ones(3, 4, 4), "known": torch.zeros(3, 4, 4)}
            )
            engine.submit(SPEC, 1, **more).result(WAIT)
            seen = engine.snapshot()
            assert seen["lanes"] == 1
            assert seen["networks"] == [""]
        assert seen["load_s"]["count"] == 0


def test_a_network_of_another_name_is_unknown():
    with Engine({"a": network(), "b": network(1)}) as engine:
        for name in ("c", None, ["a"], {"a": 1}):
            words = re.escape(f"network={name!r}: this engine has 'a', 'b'")
            with pytest.raises(ValueError, match=words):
                engine.submit(SPEC, 1, network=name)
            with pytest.raises(ValueError, match=words):
                engine.update_weights({}, network=name)


def test_an_adapter_is_named_by_a_string():
    with Engine(network()) as engine:
        for name in (["a"], 5):
            words = re.escape(f"adapter={name!r}: the network has none")
            with pytest.raises(ValueError, match=words):
                engine.submit(SPEC, 1, adapter=name)
            with pytest.raises(ValueError, match=words):
                engine.remove_adapter(name)
