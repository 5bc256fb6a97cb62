"""What goes wrong with one request, with a call and with the thread itself."""

import gc
import threading
import weakref

import pytest
import torch
from engine_cases import TIMEOUT, Network, Poisoned, alone, one, plain, running, same, spec, until
from executor_cases import SHAPE
from tape import launches_are_recorded, taping

from diffusion_engine import Decoder
from diffusion_engine.engine import Engine, EngineClosed, EngineError, NonFinite
from diffusion_engine.engine.lane import Lane
from diffusion_engine.engine.metrics import Metrics
from diffusion_engine.engine.ticket import Ticket
from diffusion_engine.engine.waiting import Shares, Waiting

__all__ = ["launches_are_recorded"]
EXECUTORS = {"eager": lambda: "eager", "recorder": taping}


def five(network, engine, bad, **more):
    """Requests of the labels 0 to 4 that begin together; the bad one's handle and the others'."""
    with network.held(engine):
        handles = [engine.submit(spec(steps=3), **one(i), **more) for i in range(5)]
    return handles[bad], {i: handles[i] for i in range(5) if i != bad}


@pytest.mark.parametrize("batch", ["bucket", "fixed"])
def test_a_sample_that_the_network_raises_for(batch):
    network = Network()
    network.raises[3] = Poisoned("three")
    with running(8, network, batch=batch) as (_, engine):
        bad, others = five(network, engine, 3)
        with pytest.raises(Poisoned, match="three"):
            bad.result(TIMEOUT)
        assert all(same(handle, steps=3, **one(i)) for i, handle in others.items())
        assert bad.status == "failed" and engine.snapshot()["failed"] == 1
        sizes = len(network.calls)
        request = {"seeds": [6, 7], "condition": [1, 2]}
        assert same(engine.submit(spec(), **request), **request)
        assert len(network.calls) == sizes + 1  # the others are called together again


def test_two_samples_that_the_network_raises_for():
    network = Network()
    network.raises |= {1: Poisoned("one"), 3: Poisoned("three")}
    with running(8, network) as (_, engine):
        bad, others = five(network, engine, 3)
        for handle, words in ((bad, "three"), (others.pop(1), "one")):
            with pytest.raises(Poisoned, match=words):
                handle.result(TIMEOUT)
        assert all(same(handle, steps=3, **one(i)) for i, handle in others.items())


def test_a_network_that_raises_for_all():
    network = Network()
    network.raises |= {label: Poisoned(str(label)) for label in range(5)}
    with running(8, network) as (_, engine):
        bad, others = five(network, engine, 0)
        for handle in (bad, *others.values()):
            with pytest.raises(Poisoned):
                handle.result(TIMEOUT)
        assert same(engine.submit(spec(), **one(6)), **one(6))
        assert engine.snapshot()["occupied"] == 0


def test_a_network_that_fails_in_company():
    """Each is called alone, and after ever more rows together again."""
    network = Network()
    run = network.run

    def run_one(x, label, y):
        if len(x) > 1:
            network.calls.append(y.tolist())
            raise Poisoned("two")
        return run(x, label, y)

    network.score = network.score.with_module(run_one)
    with running(2, network) as (_, engine):
        request = {"seeds": [1, 2], "condition": [1, 2]}
        assert same(engine.submit(spec(steps=40), **request), steps=40, **request)
        together = [i for i, labels in enumerate(network.calls) if len(labels) == 2]
        assert 4 <= len(together) <= 7  # of 40 rows


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_sample_that_is_not_finite(name):
    network = Network()
    if name == "eager":
        network.nan.add(3)
        spoilt = {}
    else:  # a graph branches on no value: the state is spoilt
        network.score = network.score.with_module(plain)
        spoilt = {"noise": lambda row, m, seeds: torch.full((1, *SHAPE), torch.nan)}
    with running(4, network, executor=EXECUTORS[name]()) as (_, engine):
        good = {i: engine.submit(spec("ddpm", 3), **one(i)) for i in range(2)}
        bad = engine.submit(spec("ddpm", 3), **one(3, 77), **spoilt)
        pair = engine.submit(spec("ddpm", 3), seeds=[5, 6], condition=[3, 3], **wide(spoilt))
        with pytest.raises(NonFinite, match="the sample of seed 77 met a value that is not finite"):
            bad.result(TIMEOUT)
        with pytest.raises(NonFinite, match="seed 5 "):
            pair.result(TIMEOUT)
        assert all(same(handle, "ddpm", 3, **one(i)) for i, handle in good.items())
        found = engine.snapshot()
        assert (found["nonfinite"], found["failed"], found["occupied"]) == (2, 2, 0)


def test_two_samples_of_a_request_that_are_not_finite():
    """They end in one row."""
    network = Network()
    network.nan.add(3)
    with running(4, network) as (_, engine):
        bad = engine.submit(spec(), seeds=[5, 6], condition=[3, 3])
        with pytest.raises(NonFinite, match="seed 5 "):
            bad.result(TIMEOUT)
        assert same(engine.submit(spec(), **one(1)), **one(1))


def wide(given):
    return {
        name: lambda row, m, seeds: torch.full((len(seeds), *SHAPE), torch.nan) for name in given
    }


def test_images_that_are_not_finite():
    decoder = Decoder(lambda z: z / 0.0)
    words = "decoder made values that are not finite"
    with Engine(Network().score, 2, decoder=decoder) as engine, pytest.warns(match=words):
        made = engine.submit(spec(), **one(1)).result(TIMEOUT)
    assert made.finite == [False]


def raising(row, m, seeds):
    if row:
        raise Poisoned("noise")
    return torch.zeros(len(seeds), *SHAPE)


def of_another_shape(row, m, seeds):
    return torch.zeros(len(seeds), *SHAPE) if not row else torch.zeros(2)


NOISE = {
    "raises": (raising, Poisoned, "noise"),
    "shape": (of_another_shape, ValueError, "noise of row 1, draw 0 is"),
    "short": (torch.zeros(1, 1, 1, *SHAPE), ValueError, "the run reads row 1"),
}


@pytest.mark.parametrize("name", NOISE)
@pytest.mark.parametrize("apart", [False, True])
def test_noise_that_cannot_be_had(name, apart):
    """Two that fail in one row, among those whose noise is there; called together and one by one."""
    given, kind, words = NOISE[name]
    fine = torch.zeros(9, 1, 1, *SHAPE)
    network = Network()
    with running(8, network) as (_, engine), network.held(engine):
        asked = [engine.submit(spec("ddpm", 3), **one(i), noise=fine) for i in range(3)]
        bad = [engine.submit(spec("ddpm", 3), **one(i), noise=given) for i in (3, 4)]
        if apart:
            network.raises[5] = Poisoned("five")
            bad.append(engine.submit(spec("ddpm", 3), **one(5), noise=given))
    for handle in bad[:2]:
        with pytest.raises(kind, match=words):
            handle.result(TIMEOUT)
    for i, handle in enumerate(asked):
        assert same(handle, "ddpm", 3, **one(i), noise=fine)


def test_a_failed_call_leaves_its_memory_to_the_next():
    """Neither the retry nor a kept handle holds what the frames of the error held."""
    held = []

    def run(x, label, y):
        activation = torch.ones(len(x))
        assert not [ref for ref in held if ref() is not None]
        held.append(weakref.ref(activation))
        if len(x) > 2:
            raise torch.OutOfMemoryError("full")
        if 7 in y.tolist():
            raise Poisoned("seven")
        return plain(x, label, y)

    network = Network()
    network.score = network.score.with_module(run)
    gc.disable()
    try:
        with running(4, network) as (_, engine):
            request = {"seeds": range(4), "condition": range(4)}
            assert same(engine.submit(spec(steps=3), **request), steps=3, **request)
            handle = engine.submit(spec(), seeds=[1, 2], condition=[1, 7])
            with pytest.raises(Poisoned, match="seven") as caught:
                handle.result(TIMEOUT)
            pair = [engine.submit(spec(), **one(label)) for label in (7, 1)]
            assert same(pair[1], **one(1))
            assert "run" in [entry.name for entry in caught.traceback]
            assert held[-1]() is None
    finally:
        gc.enable()


def test_an_error_of_the_step(monkeypatch):
    """That is nobody's fails those who sit there; who comes later is served."""
    with running(4) as (_, engine):
        assert same(engine.submit(spec(), **one(1)), **one(1))
        (lane,) = next(iter(engine._served.values())).lanes.values()
        with monkeypatch.context() as patch:

            def broken(outs=None):
                raise ZeroDivisionError("of the step")

            patch.setattr(lane.batch, "step", broken)
            handles = [engine.submit(spec(), **one(i)) for i in range(3)]
            for handle in handles:
                with pytest.raises(ZeroDivisionError, match="of the step"):
                    handle.result(TIMEOUT)
        assert same(engine.submit(spec(), **one(2)), **one(2))
        assert engine.snapshot()["occupied"] == 0


@pytest.mark.parametrize(
    ("whose", "where"), [(Lane, "admit"), (Metrics, "row"), (Waiting, "charge"), (Shares, "leave")]
)
def test_an_error_of_the_engine_itself(monkeypatch, caplog, whose, where):
    """Nobody waits for ever: not those who run, wait or come, nor who asks for something between rows."""

    def broken(self, *_):
        entered.set()
        assert go.wait(TIMEOUT)
        raise ZeroDivisionError("of the engine")

    entered, go = threading.Event(), threading.Event()
    monkeypatch.setattr(whose, where, broken)
    engine = Engine(Network().score, 2)
    handles = [engine.submit(spec(), **one(i)) for i in range(3)]
    assert entered.wait(TIMEOUT)
    events, late = handles[2].events(), engine.submit(spec(), **one(4))
    asked = []
    thread = threading.Thread(target=lambda: asked.append(ask(engine)))
    thread.start()
    until(lambda: engine._loop._asked)
    go.set()
    for handle in (*handles, late):
        with pytest.raises(
            EngineError, match="broke down by an error of its own: ZeroDivisionError"
        ):
            handle.result(TIMEOUT)
        assert handle.status == "failed"
    thread.join(TIMEOUT)
    assert isinstance(asked[0], EngineClosed)
    assert [event.kind for event in events][-1] == "failed"
    with pytest.raises(EngineClosed, match=r"broke down \(ZeroDivisionError"):
        engine.submit(spec(), **one(1))
    engine.close()
    assert "of the engine" in caplog.text


def ask(engine):
    try:
        engine.update_weights({})
    except Exception as error:
        return error


def test_an_error_that_is_its_own_cause():
    network = Network()
    network.raises[7] = Poisoned("seven")
    network.raises[7].__cause__ = network.raises[7]
    with running(2, network) as (_, engine):
        with pytest.raises(Poisoned, match="seven"):
            engine.submit(spec(), **one(7)).result(TIMEOUT)
        assert same(engine.submit(spec(), **one(1)), **one(1))


def test_a_later_sample_that_cannot_be_seated(monkeypatch):
    """Its request fails, in the very row in which its first sample took a seat."""
    job = Ticket.job

    def broken(ticket, sample):
        if sample:
            raise Poisoned("job")
        return job(ticket, sample)

    with running(4) as (_, engine):
        monkeypatch.setattr(Ticket, "job", broken)
        with pytest.raises(Poisoned, match="job"):
            engine.submit(spec(), seeds=[1, 2], condition=[1, 2]).result(TIMEOUT)
        assert same(engine.submit(spec(), **one(1)), **one(1))


def test_a_batch_that_cannot_be_opened(monkeypatch):
    network = Network()
    with running(2, network) as (_, engine):
        served = next(iter(engine._served.values()))
        engine.submit(spec(), **one(1)).result(TIMEOUT)
        executor = served.first.executor
        noise = torch.zeros(9, 1, 1, *SHAPE)

        def full(*_):
            raise torch.OutOfMemoryError("no room for buffers")

        with monkeypatch.context() as patch:
            patch.setattr(type(executor), "open", full)
            handle = engine.submit(spec("ddpm", 2), **one(1), noise=noise)
            with pytest.raises(torch.OutOfMemoryError, match="no room for buffers"):
                handle.result(TIMEOUT)
        assert same(
            engine.submit(spec("ddpm", 2), **one(1), noise=noise), "ddpm", 2, **one(1), noise=noise
        )


def test_a_decoder_that_raises_fails_who_asks():
    failures = [Poisoned("decoder")]

    def decode(z):
        if failures:
            raise failures.pop()
        return z

    with Engine(Network().score, 2, decoder=Decoder(decode)) as engine:
        handle = engine.submit(spec(), **one(1))
        with pytest.raises(Poisoned, match="decoder"):
            handle.result(TIMEOUT)
        assert torch.equal(handle.result(TIMEOUT).samples, alone(**one(1)))
