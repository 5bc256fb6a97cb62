"""Weight deltas of requests: a request runs on the merged weights, and nobody else does."""

import copy
import threading

import pytest
import torch
from adapter_cases import (
    PAIR,
    SCALED,
    WAIT,
    WHOLE,
    Mixing,
    alone,
    drawn,
    merged,
    network,
    weight_of,
)
from tape import launches_are_recorded, taping  # noqa: F401
from torch import nn

from diffusion_engine import ScoreNetwork
from diffusion_engine.engine import Engine
from diffusion_engine.engine.adapter import Delta, adapter
from diffusion_engine.processes import VP

SPEC = {"solver": "dpmpp_2m", "steps": 4}


ADAPTERS = {"whole": WHOLE, "pair": PAIR, "scaled": SCALED}


class Gate:
    """Holds the engine in a call of the network, until it is opened."""

    def __init__(self):
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, x):
        self.reached.set()
        assert self.open.wait(WAIT)

    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("executor", ["eager", "taped"])
@pytest.mark.parametrize("batch", ["bucket", "fixed"])
def test_requests_of_several_adapters_have_the_bits_of_the_merged_weights(executor, batch):
    of = network()
    before = copy.deepcopy(of.module.state_dict())
    run = taping() if executor == "taped" else "eager"
    with Engine(of, 3, adapters=ADAPTERS, executor=run, batch=batch) as engine:
        names = [None, *ADAPTERS] * 3
        handles = [engine.submit(SPEC, seeds=[i, i + 50], adapter=n) for i, n in enumerate(names)]
        made = [handle.result(WAIT) for handle in handles]
    for i, (name, result) in enumerate(zip(names, made, strict=True)):
        of_it = of if name is None else merged(of, ADAPTERS[name])
        assert torch.equal(result.samples, alone(of_it, seeds=[i, i + 50]))
        assert result.recipe["network"] == ("network" if name is None else f"network + {name}")
    assert all(torch.equal(of.module.state_dict()[n], t) for n, t in before.items())


def test_requests_of_one_adapter_share_a_batch_and_captured_graphs_see_the_switch():
    gate = Gate()
    of = ScoreNetwork(Mixing(seen=gate), VP(), (3, 4, 4))
    executor = taping()
    with Engine(of, 4, adapters=ADAPTERS, executor=executor) as engine:
        gate.open.set()
        engine.submit(SPEC, 4, adapter="whole").result(WAIT)
        for _ in range(3):
            for name in ("pair", "whole"):
                engine.submit(SPEC, 4, adapter=name).result(WAIT)
        seen = engine.snapshot()
        recorded = executor._recorder.recorded
        made = engine.submit(SPEC, seeds=[7] * 4, adapter="pair").result(WAIT).samples
        assert executor._recorder.recorded == recorded
    assert seen["lanes"] == 2
    assert seen["switch_s"]["count"] == 7
    assert torch.equal(made, alone(merged(of, PAIR), seeds=[7] * 4))


def test_adapters_come_and_go_between_rows_and_requests_keep_the_one_they_came_with():
    gate = Gate()
    of = ScoreNetwork(Mixing(seen=gate), VP(), (3, 4, 4))
    with Engine(of) as engine:
        engine.add_adapter("it", PAIR)
        first = engine.submit(SPEC, seeds=[1], adapter="it")
        assert gate.reached.wait(WAIT)
        engine.add_adapter("it", WHOLE)
        second = engine.submit(SPEC, seeds=[1], adapter="it")
        engine.remove_adapter("it")
        with pytest.raises(ValueError, match="adapter='it': the network has none"):
            engine.submit(SPEC, seeds=[1], adapter="it")
        gate.open.set()
        assert torch.equal(first.result(WAIT).samples, alone(merged(of, PAIR), seeds=[1]))
        assert torch.equal(second.result(WAIT).samples, alone(merged(of, WHOLE), seeds=[1]))


def test_batches_of_adapters_that_nobody_can_ask_for_are_let_go_of():
    with Engine(network()) as engine:
        for _ in range(3):
            engine.add_adapter("it", PAIR)
            engine.submit(SPEC, adapter="it").result(WAIT)
            engine.submit(SPEC).result(WAIT)
        assert engine.snapshot()["lanes"] == 2


def test_new_weights_are_those_that_an_adapter_is_added_to():
    of, other = network(), network(seed=9)
    wanted = {name: alone(merged(other, deltas)) for name, deltas in ADAPTERS.items()}
    with Engine(of, adapters=ADAPTERS) as engine:
        engine.submit(SPEC, seeds=[0], adapter="pair").result(WAIT)
        engine.update_weights(other.module.state_dict())
        for name in ("pair", "whole", "scaled"):
            made = engine.submit(SPEC, seeds=[0], adapter=name).result(WAIT).samples
            assert torch.equal(made, wanted[name]), name
        assert torch.equal(engine.submit(SPEC, seeds=[0]).result(WAIT).samples, alone(other))


def test_half_precision_weights_are_rounded_once():
    given = drawn(3, 3, seed=1).bfloat16()
    deltas = {"mix": (drawn(2, 3, seed=3), drawn(3, 2, seed=4), 0.7)}
    made = adapter("it", deltas, network()).deltas["mix"].added(given)
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, weight_of(given, deltas["mix"]))
    twice = given + (0.7 * (deltas["mix"][1] @ deltas["mix"][0])).bfloat16()
    assert not torch.equal(made, twice)
    of = network()
    with Engine(of, adapters={"it": deltas}, dtype=torch.bfloat16) as engine:
        samples = engine.submit(SPEC, seeds=[0], adapter="it").result(WAIT).samples
    half = of.with_module(copy.deepcopy(of.module).bfloat16())
    assert torch.equal(samples, alone(merged(half, deltas)))


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.up, self.down = nn.Conv2d(3, 16, 5, padding=2), nn.Conv2d(16, 3, 1)

    def forward(self, x, label):
        return self.down(torch.relu(self.up(x))) + 0.1 * x


def packed_until_unloaded(engine):
    weights = engine._served[""].weights
    held, copies = weights.held, 4 * 16 * 75
    engine._loop.ask(weights.unload)
    return held > copies and weights.held == 0


def test_packed_weights_follow_the_switch_and_new_weights(monkeypatch):
    """One sample at a time: a convolution's bits depend on the batch."""
    monkeypatch.setattr(
        "diffusion_engine.accelerate.network.seconds",
        lambda forms, *_: {name: float(name == "original") for name in forms},
    )
    of = ScoreNetwork(Convolutions(), VP(), (3, 8, 8))
    deltas = {"up.weight": (drawn(2, 75, seed=1), drawn(16, 2, seed=2), 0.5)}
    other = of.with_module(copy.deepcopy(of.module))
    with torch.no_grad():
        for parameter in other.module.parameters():
            parameter.mul_(0.9)
    own, changed = copy.deepcopy(of.module.state_dict()), other.module.state_dict()
    wanted = [
        alone(n, accelerate=True) for n in (of, merged(of, deltas), other, merged(other, deltas))
    ]
    with Engine(of, 1, adapters={"it": deltas}, accelerate=True) as engine:
        for weights, (base, adapted) in ((own, wanted[:2]), (changed, wanted[2:])):
            engine.update_weights(weights)
            for _ in range(2):
                assert torch.equal(engine.submit(SPEC, seeds=[0]).result(WAIT).samples, base)
                made = engine.submit(SPEC, seeds=[0], adapter="it").result(WAIT).samples
                assert torch.equal(made, adapted)
        assert packed_until_unloaded(engine)


def test_a_weight_that_two_layers_share_is_changed_in_both():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x, label):
            return self.b(torch.relu(self.a(x)))

    of = ScoreNetwork(Tied(), VP(), (3, 4, 4))
    deltas = {"a.weight": drawn(4, 4, seed=1)}
    with Engine(of, 1, adapters={"it": deltas}) as engine:
        made = engine.submit(SPEC, seeds=[0], adapter="it").result(WAIT).samples
    assert torch.equal(made, alone(merged(of, deltas)))


WRONG = [
    ({"mxi": drawn(3, 3, seed=0)}, "'mxi' is no parameter of the network; did you mean mix?"),
    ({"shift": torch.tensor(1.0)}, "'shift' is no parameter"),
    ({"mix": drawn(3, 2, seed=0)}, r"'mix': it is \[3, 2\] and the weight \[3, 3\]; give a tensor"),
    ({"mix": (drawn(2, 3, seed=0), drawn(3, 1, seed=0))}, r"A is \[2, 3\] and B \[3, 1\]; A is \[r, in\]"),
    ({"mix": (drawn(2, 4, seed=0), drawn(3, 2, seed=0))}, r"has not the shape \[3, 3\]"),
    ({"mix": (drawn(2, 3, seed=0), drawn(3, 2, seed=0), "x")}, "scale="),
    ({"mix": (drawn(2, 3, seed=0), 2.0)}, "give a tensor of the weight's shape, or"),
    ({"mix": 2.0}, "give a tensor of the weight's shape, or"),
    ({"mix": torch.full((3, 3), torch.nan)}, "NaN or infinity"),
    ({}, "give a mapping of parameters' names to deltas"),
    (3, "give a mapping of parameters' names to deltas"),
]  # fmt: skip


@pytest.mark.parametrize("deltas, said", WRONG)
def test_what_does_not_fit_is_refused_and_the_engine_goes_on(deltas, said):
    of = network()
    with Engine(of) as engine:
        with pytest.raises(ValueError, match=said):
            engine.add_adapter("it", deltas)
        with pytest.raises(ValueError, match="adapter='it': the network has none"):
            engine.submit(SPEC, 1, adapter="it")
        assert torch.equal(engine.submit(SPEC, seeds=[0]).result(WAIT).samples, alone(of))


def test_a_switch_that_fails_fails_who_wanted_it(monkeypatch):
    """And nobody else; the next one finds the weights as they should be."""

    def added(*_):
        raise torch.OutOfMemoryError("no memory for the merged weights")

    of = network()
    with Engine(of, adapters=ADAPTERS) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(Delta, "added", added)
            handles = [engine.submit(SPEC, 3, adapter=name) for name in ("pair", "pair", "whole")]
            plain = engine.submit(SPEC, seeds=[0])
            for handle in handles:
                with pytest.raises(torch.OutOfMemoryError, match="no memory for the merged"):
                    handle.result(WAIT)
            assert torch.equal(plain.result(WAIT).samples, alone(of))
        made = engine.submit(SPEC, seeds=[0], adapter="pair").result(WAIT).samples
        assert torch.equal(made, alone(merged(of, PAIR)))


def test_a_network_without_weights_takes_no_adapter():
    of = ScoreNetwork(lambda x, t: x, VP(), (3, 4, 4))
    with Engine(of) as engine, pytest.raises(ValueError, match=r"no torch\.nn\.Module"):
        engine.add_adapter("it", WHOLE)


def test_the_callers_deltas_may_change_afterwards():
    of, deltas = network(), {"mix": drawn(3, 3, seed=1)}
    wanted = alone(merged(of, deltas))
    with Engine(of, adapters={"it": deltas}) as engine:
        deltas["mix"].zero_()
        assert torch.equal(
            engine.submit(SPEC, seeds=[0], adapter="it").result(WAIT).samples, wanted
        )
